// The smallest logit that top_k, top_p and min_p keep: all three keep the largest logits.
//
// top_k and top_p ask for the largest t for which the tokens with logit >= t are at least k, or
// have at least the mass. 16 guesses of t are weighed in one pass over the row; the two around the
// answer are the next pass's ends, until what lies between fits into `candidates`, where every
// logit is tried. Ties that do not fit end the search when no float lies between the ends.

$team

$row

$candidates

@group(0) @binding(1) var<storage, read_write> logits: array<f32>; // [outputs, vocab]
@group(0) @binding(2) var<storage, read_write> best: array<Best>; // [outputs, chunks]
@group(0) @binding(3) var<storage, read_write> threshold: array<f32>; // [outputs]

const GUESSES = 16u;
const MAX_PASSES = 64u;

// A token weighs 1 (by_count), or as much as its probability over the largest one.
struct Weighing {
  first: u32, // of the row in `logits`
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

var<private> guesses: array<f32, GUESSES>; // descending
var<private> weights: array<f32, GUESSES>; // of the tokens at or above each guess

fn weight_of(w: Weighing, logit: f32) -> f32 {
  return select(exp((logit - w.largest) / w.temperature), 1.0, w.by_count);
}

fn weigh_guesses(w: Weighing, thread: u32) {
  let g0 = vec4<f32>(guesses[0], guesses[1], guesses[2], guesses[3]);
  let g1 = vec4<f32>(guesses[4], guesses[5], guesses[6], guesses[7]);
  let g2 = vec4<f32>(guesses[8], guesses[9], guesses[10], guesses[11]);
  let g3 = vec4<f32>(guesses[12], guesses[13], guesses[14], guesses[15]);
  var sums: array<vec4<f32>, 4>;
  for (var start = thread; start < VOCAB; start += 256u * THREADS) { // sums of sums: less rounding
    var part = array<vec4<f32>, 4>();
    for (var token = start; token < min(start + 256u * THREADS, VOCAB); token += THREADS) {
      let logit = logits[w.first + token];
      if logit >= guesses[GUESSES - 1u] {
        let weight = vec4<f32>(weight_of(w, logit));
        part[0] += select(vec4<f32>(), weight, vec4<f32>(logit) >= g0);
        part[1] += select(vec4<f32>(), weight, vec4<f32>(logit) >= g1);
        part[2] += select(vec4<f32>(), weight, vec4<f32>(logit) >= g2);
        part[3] += select(vec4<f32>(), weight, vec4<f32>(logit) >= g3);
      }
    }
    for (var i = 0u; i < 4u; i++) {
      sums[i] += part[i];
    }
  }
  for (var i = 0u; i < 4u; i++) {
    let sum = sum4_across(sums[i], thread);
    for (var j = 0u; j < 4u; j++) {
      weights[4u * i + j] = sum[j];
    }
  }
}

// The ends around the lowest guess that weighs less than `goal`.
fn ends_around(goal: f32, outer: Ends) -> Ends {
  var high = outer.high;
  var above = outer.above;
  for (var i = 0u; i < GUESSES; i++) {
    if weights[i] >= goal || i == GUESSES - 1u {
      return Ends(guesses[i], high, above);
    }
    high = guesses[i];
    above = weights[i];
  }
  return outer;
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
  for (var i = 0u; i < GUESSES; i++) {
    guesses[i] = max(low, w.largest - step_size * exp2(f32(i) - 7.0));
  }
  guesses[GUESSES - 1u] = low;
  weigh_guesses(w, thread);
  let total = select(weights[GUESSES - 1u], 1.0, w.by_count);
  var ends = ends_around(goal * total, Ends(low, w.largest + abs(w.largest) + 1.0, 0.0));
  for (var pass_id = 0u; pass_id < MAX_PASSES; pass_id++) {
    no_candidates(thread);
    for (var token = thread; token < VOCAB; token += THREADS) {
      let logit = logits[w.first + token];
      if logit >= ends.low && logit < ends.high {
        add_candidate(logit, weight_of(w, logit));
      }
    }
    let count = count_candidates(thread);
    if count <= CAPACITY {
      return exact(goal * total, ends, count, thread);
    }
    for (var i = 0u; i < GUESSES; i++) {
      guesses[i] = ends.low + (ends.high - ends.low) * (f32(GUESSES - 1u - i) / f32(GUESSES));
    }
    weigh_guesses(w, thread);
    let narrowed = ends_around(goal * total, ends);
    if narrowed.low == ends.low && narrowed.high == ends.high {
      break;
    }
    ends = narrowed;
  }
  return ends.low;
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
  var top = Best(LOWEST, 0xffffffffu);
  for (var chunk = thread; chunk < num_chunks(); chunk += THREADS) {
    let candidate = best[output * num_chunks() + chunk];
    if better(candidate, top) {
      top = candidate;
    }
  }
  let largest = best_across(top, thread).value;
  var low = LOWEST;
  if row.top_k > 0u && row.top_k < VOCAB {
    let counting = Weighing(output * VOCAB, largest, row.temperature, true);
    low = search(counting, low, f32(row.top_k), thread);
  }
  if row.top_p < 1.0 {
    let massing = Weighing(output * VOCAB, largest, row.temperature, false);
    low = search(massing, low, row.top_p, thread);
  }
  if row.min_p > 0.0 {
    low = max(low, largest + row.temperature * log(row.min_p));
  }
  if thread == 0u {
    threshold[output] = low;
  }
}
