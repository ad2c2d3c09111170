// Adds the biases of an output row and finds the largest logit of each chunk.

override BIASES: u32; // word of the step

$team

$row

@group(0) @binding(1) var<storage, read_write> logits: array<f32>; // [outputs, vocab]
@group(0) @binding(2) var<storage, read_write> best: array<Best>; // [outputs, chunks]

// Each thread keeps to the tokens it reads afterwards, so that no barrier is needed and a token
// that is listed twice gets both.
fn add_biases(output: u32, begin: u32, end: u32, thread: u32) {
  for (var i = 0u; i < step[HEADER + 3u]; i++) {
    let at = BIASES + 3u * i;
    let token = step[at + 1u];
    if step[at] == output && token >= begin && token < end && (token - begin) % THREADS == thread {
      logits[output * VOCAB + token] += bitcast<f32>(step[at + 2u]);
    }
  }
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
  let begin = workgroup.x * CHUNK;
  let end = min(begin + CHUNK, VOCAB);
  add_biases(output, begin, end, thread);
  var found = Best(LOWEST, 0xffffffffu);
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
}
