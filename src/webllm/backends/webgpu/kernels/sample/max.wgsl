// Finds the largest logit of each chunk and, for rows with logprobs, the sum of exp(logit - it).

$reduction

$row

@group(0) @binding(1) var<storage, read_write> logits: array<f32>; // [outputs, vocab]
@group(0) @binding(2) var<storage, read_write> best: array<Best>; // [outputs, chunks]
@group(0) @binding(3) var<storage, read_write> sums: array<f32>; // [outputs, chunks]

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let output = workgroup.y;
  if output >= num_outputs() {
    return;
  }
  let begin = workgroup.x * CHUNK;
  let end = min(begin + CHUNK, VOCAB);
  var found = Best(LOWEST, NO_TOKEN);
  for (var token = begin + thread; token < end; token += THREADS) {
    let candidate = Best(logits[output * VOCAB + token], token);
    if better(candidate, found) {
      found = candidate;
    }
  }
  found = best_across(found, thread);
  if thread == 0u {
    best[output * num_chunks() + workgroup.x] = found;
  }
  if row_of(output).logprobs == 0u {
    return;
  }
  var sum = 0.0;
  for (var token = begin + thread; token < end; token += THREADS) {
    sum += exp(logits[output * VOCAB + token] - found.value);
  }
  sum = sum_across(sum, thread);
  if thread == 0u {
    sums[output * num_chunks() + workgroup.x] = sum;
  }
}
