// Finds the smallest logit that top_k, top_p and min_p keep: all three keep the largest logits.
//
// top_k and top_p want the largest t for which the tokens with logit >= t are at least k, or have
// at least the probability mass. One pass over the row weighs 16 guesses of t; the two guesses
// around the answer bound the next pass. Once the tokens between the bounds fit into `candidates`,
// every one of their logits is tried. Ties that do not fit end the search when no float is left
// between the bounds.
//
// An iteration takes eight tokens and skips chunks whose largest logit is too small: lavapipe ends
// every loop once a thread has done 65535 iterations.

$reduction

$row

$candidates

@group(0) @binding(1) var<storage, read_write> logits: array<f32>; // [outputs, vocab]
@group(0) @binding(2) var<storage, read_write> best: array<Best>; // [outputs, chunks]
@group(0) @binding(3) var<storage, read_write> threshold: array<f32>; // [outputs]

const GUESSES = 16u;
const MAX_PASSES = 64u;

override LANES: u32; // threads that share a chunk, eight tokens each at a time

// A token weighs 1 (by_count), or as much as its probability over the largest one.
struct Weighing {
  first: u32, // of the row in `logits`
  first_chunk: u32, // of the row in `best`
  largest: f32,
  temperature: f32,
  by_count: bool,
}

// The answer is in [low, high); the tokens at or above `high` weigh `above`.
struct Ends {
  low: f32,
  high: f32,
  above: f32,
}

// Guesses in descending order, or the weights of the tokens at or above each. They are named
// fields, not an array, so that they stay in registers.
struct Sixteen {
  a: vec4<f32>,
  b: vec4<f32>,
  c: vec4<f32>,
  d: vec4<f32>,
}

fn listed(s: Sixteen) -> array<f32, GUESSES> {
  return array<f32, GUESSES>(
    s.a.x, s.a.y, s.a.z, s.a.w, s.b.x, s.b.y, s.b.z, s.b.w,
    s.c.x, s.c.y, s.c.z, s.c.w, s.d.x, s.d.y, s.d.z, s.d.w
  );
}

fn weight_of(w: Weighing, logit: vec4<f32>) -> vec4<f32> {
  return select(exp((logit - w.largest) / w.temperature), vec4<f32>(1.0), w.by_count);
}

// Returns the logits of four of the thread's tokens; below LOWEST where there is no token.
fn four(w: Weighing, token: u32) -> vec4<f32> {
  let tokens = token + vec4<u32>(0u, LANES, 2u * LANES, 3u * LANES);
  let at = w.first + min(tokens, vec4<u32>(VOCAB - 1u));
  let read = vec4<f32>(logits[at.x], logits[at.y], logits[at.z], logits[at.w]);
  return select(vec4<f32>(-3.4e38), read, tokens < vec4<u32>(VOCAB));
}

fn weigh_one(sums: Sixteen, guesses: Sixteen, logit: f32, weight: f32) -> Sixteen {
  let none = vec4<f32>();
  let l = vec4<f32>(logit);
  let w = vec4<f32>(weight);
  return Sixteen(
    sums.a + select(none, w, l >= guesses.a),
    sums.b + select(none, w, l >= guesses.b),
    sums.c + select(none, w, l >= guesses.c),
    sums.d + select(none, w, l >= guesses.d)
  );
}

fn weigh(sums: Sixteen, guesses: Sixteen, w: Weighing, logit: vec4<f32>) -> Sixteen {
  let weight = weight_of(w, logit);
  let one = weigh_one(sums, guesses, logit.x, weight.x);
  let two = weigh_one(one, guesses, logit.y, weight.y);
  let three = weigh_one(two, guesses, logit.z, weight.z);
  return weigh_one(three, guesses, logit.w, weight.w);
}

// Returns the weight of the row's tokens at or above each guess; the same in every thread.
fn weights_of(guesses: Sixteen, w: Weighing, thread: u32) -> Sixteen {
  var sums: Sixteen;
  for (var chunk = thread / LANES; chunk < num_chunks(); chunk += THREADS / LANES) {
    if best[w.first_chunk + chunk].value >= guesses.d.w {
      var part = Sixteen(); // sums of sums: less rounding
      let begin = chunk * CHUNK + thread % LANES;
      for (var token = begin; token < begin + CHUNK; token += 8u * LANES) {
        part = weigh(part, guesses, w, four(w, token));
        part = weigh(part, guesses, w, four(w, token + 4u * LANES));
      }
      sums = Sixteen(sums.a + part.a, sums.b + part.b, sums.c + part.c, sums.d + part.d);
    }
  }
  return Sixteen(
    sum4_across(sums.a, thread), sum4_across(sums.b, thread),
    sum4_across(sums.c, thread), sum4_across(sums.d, thread)
  );
}

fn offer_one(logit: f32, weight: f32, ends: Ends) {
  if logit >= ends.low && logit < ends.high {
    add_candidate(logit, weight);
  }
}

fn offer(w: Weighing, logit: vec4<f32>, ends: Ends) {
  let weight = weight_of(w, logit);
  offer_one(logit.x, weight.x, ends);
  offer_one(logit.y, weight.y, ends);
  offer_one(logit.z, weight.z, ends);
  offer_one(logit.w, weight.w, ends);
}

// Returns the number of tokens between the ends, which become the candidates if they fit.
fn gather(w: Weighing, ends: Ends, thread: u32) -> u32 {
  no_candidates(thread);
  for (var chunk = thread / LANES; chunk < num_chunks(); chunk += THREADS / LANES) {
    if best[w.first_chunk + chunk].value >= ends.low {
      let begin = chunk * CHUNK + thread % LANES;
      for (var token = begin; token < begin + CHUNK; token += 8u * LANES) {
        offer(w, four(w, token), ends);
        offer(w, four(w, token + 4u * LANES), ends);
      }
    }
  }
  return count_candidates(thread);
}

// Returns the ends around the lowest guess that weighs less than `goal`.
fn ends_around(goal: f32, guesses: Sixteen, weights: Sixteen, outer: Ends) -> Ends {
  var guess = listed(guesses);
  var weight = listed(weights);
  var high = outer.high;
  var above = outer.above;
  for (var i = 0u; i < GUESSES - 1u; i++) {
    if weight[i] >= goal {
      return Ends(guess[i], high, above);
    }
    high = guess[i];
    above = weight[i];
  }
  return Ends(guesses.d.w, high, above);
}

// Returns the largest candidate at and above which the row weighs at least `goal`.
fn exact(goal: f32, ends: Ends, count: u32, thread: u32) -> f32 {
  var found = Best(ends.low, 0u);
  for (var i = thread; i < count; i += THREADS) {
    let logit = candidates[i].x;
    var weight = ends.above;
    for (var j = 0u; j < count; j++) {
      weight += select(0.0, candidates[j].y, candidates[j].x >= logit);
    }
    if weight >= goal && logit > found.value {
      found.value = logit;
    }
  }
  return best_across(found, thread).value;
}

// Returns guesses at growing distances from the largest logit; the last one is `low`.
fn first_guesses(w: Weighing, low: f32) -> Sixteen {
  let nearest = -exp2(-7.0) * select(w.temperature, 1.0, w.by_count);
  let powers = nearest * vec4<f32>(1.0, 2.0, 4.0, 8.0);
  let floor = vec4<f32>(low);
  return Sixteen(
    max(floor, w.largest + powers),
    max(floor, w.largest + 16.0 * powers),
    max(floor, w.largest + 256.0 * powers),
    vec4<f32>(max(floor, w.largest + 4096.0 * powers).xyz, low)
  );
}

// Returns evenly spaced guesses; the lowest one is ends.low.
fn even_guesses(ends: Ends) -> Sixteen {
  let width = (ends.high - ends.low) / 16.0;
  let steps = width * vec4<f32>(3.0, 2.0, 1.0, 0.0);
  return Sixteen(
    ends.low + (12.0 * width + steps),
    ends.low + (8.0 * width + steps),
    ends.low + (4.0 * width + steps),
    ends.low + steps
  );
}

// Returns the largest t >= low with weight(logits >= t) >= goal, or >= goal * weight(logits >= low) for
// masses.
fn search(w: Weighing, low: f32, goal: f32, thread: u32) -> f32 {
  var guesses = first_guesses(w, low);
  var ends = Ends(low, w.largest + abs(w.largest) + 1.0, 0.0);
  var total = 1.0;
  var count = CAPACITY + 1u;
  for (var pass_id = 0u; pass_id < MAX_PASSES; pass_id++) {
    let weights = weights_of(guesses, w, thread);
    if pass_id == 0u && !w.by_count {
      total = weights.d.w;
    }
    let narrowed = ends_around(goal * total, guesses, weights, ends);
    let moved = narrowed.low != ends.low || narrowed.high != ends.high;
    ends = narrowed;
    let stuck = sum_across(select(0.0, 1.0, moved), thread) == 0.0; // the same in every thread, provably
    if stuck && pass_id > 0u {
      break;
    }
    count = gather(w, ends, thread);
    if count <= CAPACITY {
      break;
    }
    guesses = even_guesses(ends);
  }
  if count > CAPACITY {
    return ends.low;
  }
  return exact(goal * total, ends, count, thread);
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let output = workgroup.y;
  if output >= num_outputs() {
    return;
  }
  let row = row_of(output);
  if row.temperature == 0.0 {
    return;
  }
  let first_chunk = output * num_chunks();
  var top = Best(LOWEST, 0xffffffffu);
  for (var chunk = thread; chunk < num_chunks(); chunk += THREADS) {
    let candidate = best[first_chunk + chunk];
    if better(candidate, top) {
      top = candidate;
    }
  }
  let largest = best_across(top, thread).value;
  var low = LOWEST;
  for (var by_mass = 0u; by_mass < 2u; by_mass++) { // a loop, so that `search` is compiled once
    let w = Weighing(output * VOCAB, first_chunk, largest, row.temperature, by_mass == 0u);
    let goal = select(row.top_p, f32(row.top_k), w.by_count);
    let counts = row.top_k > 0u && row.top_k < VOCAB;
    let masses = row.top_p < 1.0;
    if select(masses, counts, w.by_count) {
      low = search(w, low, goal, thread);
    }
  }
  if row.min_p > 0.0 {
    low = max(low, largest + row.temperature * log(row.min_p));
  }
  if thread == 0u {
    threshold[output] = low;
  }
}

//# candidates_workgroup
// Candidates in workgroup memory.
const CAPACITY = 512u;

var<workgroup> candidates: array<vec2<f32>, CAPACITY>; // logit, weight
var<workgroup> num_candidates: atomic<u32>;
var<workgroup> counted: u32;

fn no_candidates(thread: u32) {
  if thread == 0u {
    atomicStore(&num_candidates, 0u);
  }
  workgroupBarrier();
}

fn add_candidate(logit: f32, weight: f32) {
  let at = atomicAdd(&num_candidates, 1u);
  if at < CAPACITY {
    candidates[at] = vec2<f32>(logit, weight);
  }
}

// Returns the number of candidates added; those beyond CAPACITY are not kept.
fn count_candidates(thread: u32) -> u32 {
  workgroupBarrier();
  if thread == 0u {
    counted = atomicLoad(&num_candidates);
  }
  return workgroupUniformLoad(&counted);
}

//# candidates_single
// Candidates of a single thread.
const CAPACITY = 64u; // its square is far below lavapipe's 65535 iterations

var<private> candidates: array<vec2<f32>, CAPACITY>; // logit, weight
var<private> num_candidates: u32;

fn no_candidates(thread: u32) {
  num_candidates = 0u;
}

fn add_candidate(logit: f32, weight: f32) {
  if num_candidates < CAPACITY {
    candidates[num_candidates] = vec2<f32>(logit, weight);
  }
  num_candidates++;
}

fn count_candidates(thread: u32) -> u32 {
  return num_candidates;
}
