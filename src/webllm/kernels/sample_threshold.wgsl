// The smallest logit that top_k, top_p and min_p keep: all three keep the largest logits.
//
// top_k and top_p ask for the largest t for which the tokens with logit >= t are at least k, or
// have at least the mass. 16 guesses of t are weighed in one pass over the row; the two around the
// answer are the next pass's ends, until what lies between fits into `candidates`, where every
// logit is tried. Ties that do not fit end the search when no float lies between the ends.
//
// Eight tokens an iteration, and no chunk whose largest is too small: lavapipe leaves every loop
// once a thread has done 65535 iterations.

$team

$row

$candidates

@group(0) @binding(1) var<storage, read_write> logits: array<f32>; // [outputs, vocab]
@group(0) @binding(2) var<storage, read_write> best: array<Best>; // [outputs, chunks]
@group(0) @binding(3) var<storage, read_write> threshold: array<f32>; // [outputs]

const GUESSES = 16u;
const MAX_PASSES = 64u;
const FOUR = vec4<f32>(0.0, 1.0, 2.0, 3.0);

// A token weighs 1 (by_count), or as much as its probability over the largest one.
struct Weighing {
  first: u32, // of the row in `logits`
  first_chunk: u32, // of the row in `best`
  largest: f32,
  temperature: f32,
  by_count: bool,
}

// The answer lies in [low, high); what is at or above `high` weighs `above`.
struct Ends {
  low: f32,
  high: f32,
  above: f32,
}

var<private> guesses: array<vec4<f32>, 4>; // descending
var<private> weights: array<vec4<f32>, 4>; // of the tokens at or above each guess

fn weight_of(w: Weighing, logit: vec4<f32>) -> vec4<f32> {
  return select(exp((logit - w.largest) / w.temperature), vec4<f32>(1.0), w.by_count);
}

// Logits of four of the thread's tokens; below LOWEST where there is none.
fn four(w: Weighing, token: u32) -> vec4<f32> {
  let tokens = token + vec4<u32>(0u, THREADS, 2u * THREADS, 3u * THREADS);
  let at = w.first + min(tokens, vec4<u32>(VOCAB - 1u));
  let read = vec4<f32>(logits[at.x], logits[at.y], logits[at.z], logits[at.w]);
  return select(vec4<f32>(-3.4e38), read, tokens < vec4<u32>(VOCAB));
}

fn weigh_one(logit: f32, weight: f32) {
  weights[0] += select(vec4<f32>(), vec4<f32>(weight), vec4<f32>(logit) >= guesses[0]);
  weights[1] += select(vec4<f32>(), vec4<f32>(weight), vec4<f32>(logit) >= guesses[1]);
  weights[2] += select(vec4<f32>(), vec4<f32>(weight), vec4<f32>(logit) >= guesses[2]);
  weights[3] += select(vec4<f32>(), vec4<f32>(weight), vec4<f32>(logit) >= guesses[3]);
}

fn weigh(w: Weighing, logit: vec4<f32>) {
  let weight = weight_of(w, logit);
  weigh_one(logit.x, weight.x);
  weigh_one(logit.y, weight.y);
  weigh_one(logit.z, weight.z);
  weigh_one(logit.w, weight.w);
}

fn weigh_guesses(w: Weighing, thread: u32) {
  var sums = array<vec4<f32>, 4>();
  for (var chunk = 0u; chunk < num_chunks(); chunk++) { // sums of sums: less rounding
    if best[w.first_chunk + chunk].value >= guesses[3].w {
      weights = array<vec4<f32>, 4>();
      let begin = chunk * CHUNK + thread;
      for (var token = begin; token < begin + CHUNK; token += 8u * THREADS) {
        weigh(w, four(w, token));
        weigh(w, four(w, token + 4u * THREADS));
      }
      for (var i = 0u; i < 4u; i++) {
        sums[i] += weights[i];
      }
    }
  }
  for (var i = 0u; i < 4u; i++) {
    weights[i] = sum4_across(sums[i], thread);
  }
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

// How many tokens lie between the ends; the candidates are these if they fit.
fn gather(w: Weighing, ends: Ends, thread: u32) -> u32 {
  no_candidates(thread);
  for (var chunk = 0u; chunk < num_chunks(); chunk++) {
    if best[w.first_chunk + chunk].value >= ends.low {
      let begin = chunk * CHUNK + thread;
      for (var token = begin; token < begin + CHUNK; token += 8u * THREADS) {
        offer(w, four(w, token), ends);
        offer(w, four(w, token + 4u * THREADS), ends);
      }
    }
  }
  return count_candidates(thread);
}

// The ends around the lowest guess that weighs less than `goal`.
fn ends_around(goal: f32, outer: Ends) -> Ends {
  var high = outer.high;
  var above = outer.above;
  for (var i = 0u; i < GUESSES - 1u; i++) {
    if weights[i / 4u][i % 4u] >= goal {
      return Ends(guesses[i / 4u][i % 4u], high, above);
    }
    high = guesses[i / 4u][i % 4u];
    above = weights[i / 4u][i % 4u];
  }
  return Ends(guesses[3].w, high, above);
}

// The largest candidate at and above which the row weighs at least `goal`.
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

// The largest t >= low with weight(logits >= t) >= goal, or >= goal * weight(logits >= low) for
// masses.
fn search(w: Weighing, low: f32, goal: f32, thread: u32) -> f32 {
  let step_size = select(w.temperature, 1.0, w.by_count);
  for (var i = 0u; i < 4u; i++) {
    let powers = exp2(FOUR + 4.0 * f32(i) - 7.0);
    guesses[i] = max(vec4<f32>(low), w.largest - step_size * powers);
  }
  guesses[3].w = low;
  var ends = Ends(low, w.largest + abs(w.largest) + 1.0, 0.0);
  var total = 1.0;
  var count = CAPACITY + 1u;
  for (var pass_id = 0u; pass_id < MAX_PASSES; pass_id++) {
    weigh_guesses(w, thread);
    if pass_id == 0u && !w.by_count {
      total = weights[3].w;
    }
    let narrowed = ends_around(goal * total, ends);
    let moved = narrowed.low != ends.low || narrowed.high != ends.high;
    ends = narrowed;
    let stuck = sum_across(select(0.0, 1.0, moved), thread) == 0.0; // provably the same in all
    if stuck && pass_id > 0u {
      break;
    }
    count = gather(w, ends, thread);
    if count <= CAPACITY {
      break;
    }
    for (var i = 0u; i < 4u; i++) {
      let shares = (f32(GUESSES - 1u) - 4.0 * f32(i) - FOUR) / f32(GUESSES);
      guesses[i] = ends.low + (ends.high - ends.low) * shares;
    }
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
