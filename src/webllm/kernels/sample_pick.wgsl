// The token: the best of the chunks.

$team

$row

@group(0) @binding(1) var<storage, read_write> best: array<Best>; // [outputs, chunks]
@group(0) @binding(2) var<storage, read_write> sampled: array<u32>; // [outputs]

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let output = workgroup.y;
  if output >= num_outputs() {
    return;
  }
  var found = Best(LOWEST, 0xffffffffu);
  for (var chunk = thread; chunk < num_chunks(); chunk += THREADS) {
    let candidate = best[output * num_chunks() + chunk];
    if better(candidate, found) {
      found = candidate;
    }
  }
  found = best_across(found, thread);
  if thread == 0u {
    sampled[output] = min(found.id, VOCAB - 1u); // a row of NaN has no best
  }
}
