// Picks the token: the best of the chunks. Adds its log-probability for rows that want it.

override LOGPROBS: u32; // word of `sampled`

$reduction

$row

@group(0) @binding(1) var<storage, read_write> logits: array<f32>; // [outputs, vocab]
@group(0) @binding(2) var<storage, read_write> best: array<Best>; // [outputs, chunks]
@group(0) @binding(3) var<storage, read_write> sampled: array<u32>; // [outputs], then logprobs

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let output = workgroup.y;
  if output >= num_outputs() {
    return;
  }
  var found = Best(LOWEST, NO_TOKEN);
  for (var chunk = thread; chunk < num_chunks(); chunk += THREADS) {
    let candidate = best[output * num_chunks() + chunk];
    if better(candidate, found) {
      found = candidate;
    }
  }
  found = best_across(found, thread);
  if thread == 0u {
    let token = min(found.id, VOCAB - 1u); // a row of NaN has no best token
    sampled[output] = token;
    if row_of(output).logprobs > 0u {
      let at = LOGPROBS + 41u * output; // `logprobs` has put the log of the row's sum here
      sampled[at] = bitcast<u32>(logits[output * VOCAB + token] - bitcast<f32>(sampled[at]));
    }
  }
}
