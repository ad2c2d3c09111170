// Gumbel-max sampling: finds each chunk's largest scaled logit + noise among the kept tokens.

override OUTPUT_ROWS: u32; // words of the step
override POSITIONS: u32;

$reduction

$row

@group(0) @binding(1) var<storage, read_write> logits: array<f32>; // [outputs, vocab]
@group(0) @binding(2) var<storage, read_write> best: array<Best>; // [outputs, chunks]
@group(0) @binding(3) var<storage, read_write> threshold: array<f32>; // [outputs]

fn pcg(input: u32) -> u32 {
  let state = input * 747796405u + 2891336453u;
  let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
  return (word >> 22u) ^ word;
}

// Returns -log(u) for u = (k + 1/2) / 2^24. Close to u = 1, log loses all digits; a series in 1 - u
// keeps them.
fn minus_log(k: u32) -> f32 {
  let rest = f32(0x00ffffffu - k) * exp2(-24.0) + exp2(-25.0); // 1 - u
  if rest < 0.125 {
    return rest * (1.0 + rest * (1.0 / 2.0 + rest * (1.0 / 3.0 + rest * (1.0 / 4.0 + rest *
      (1.0 / 5.0 + rest * (1.0 / 6.0 + rest * (1.0 / 7.0)))))));
  }
  return -log(f32(k) * exp2(-24.0) + exp2(-25.0));
}

fn gumbel(key: u32, token: u32) -> f32 {
  return -log(minus_log(pcg(key + token) >> 8u));
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
    return; // `max` has found the token
  }
  let key = pcg(row.seed ^ pcg(step[POSITIONS + step[OUTPUT_ROWS + output]]));
  let begin = workgroup.x * CHUNK;
  let end = min(begin + CHUNK, VOCAB);
  var found = Best(LOWEST, 0xffffffffu);
  for (var token = begin + thread; token < end; token += THREADS) {
    let logit = logits[output * VOCAB + token];
    if logit >= threshold[output] {
      let candidate = Best(logit / row.temperature + gumbel(key, token), token);
      if better(candidate, found) {
        found = candidate;
      }
    }
  }
  found = best_across(found, thread);
  if thread == 0u {
    best[output * num_chunks() + workgroup.x] = found;
  }
}
