// Finds the likeliest tokens of an output row and their log-probabilities, by a tournament: each
// chunk enters its best token, and the winner's chunk then enters its next one. Stores the log of
// the row's sum for `pick`.

override LOGPROBS: u32; // word of `sampled`

$reduction

$row

@group(0) @binding(1) var<storage, read_write> logits: array<f32>; // [outputs, vocab]
@group(0) @binding(2) var<storage, read_write> best: array<Best>; // [outputs, chunks]
@group(0) @binding(3) var<storage, read_write> sums: array<f32>; // [outputs, chunks]
@group(0) @binding(4) var<storage, read_write> entered: array<Best>; // [outputs, chunks]
@group(0) @binding(5) var<storage, read_write> sampled: array<u32>;

// Only one thread reads and writes a chunk's entry, so no barrier is needed.
fn enter_all(first: u32, thread: u32) {
  for (var chunk = thread; chunk < num_chunks(); chunk += THREADS) {
    entered[first + chunk] = best[first + chunk];
  }
}

fn winner_of(first: u32, thread: u32) -> Best {
  var found = Best(LOWEST, NO_TOKEN);
  for (var chunk = thread; chunk < num_chunks(); chunk += THREADS) {
    if better(entered[first + chunk], found) {
      found = entered[first + chunk];
    }
  }
  return best_across(found, thread);
}

// Returns the largest logit of a chunk that ranks below `last`.
fn next_of(output: u32, chunk: u32, last: Best, thread: u32) -> Best {
  let begin = chunk * CHUNK;
  let end = min(begin + CHUNK, VOCAB);
  var found = Best(LOWEST, NO_TOKEN);
  for (var token = begin + thread; token < end; token += THREADS) {
    let candidate = Best(logits[output * VOCAB + token], token);
    if better(last, candidate) && better(candidate, found) {
      found = candidate;
    }
  }
  return best_across(found, thread);
}

fn log_sum_of(first: u32, largest: f32, thread: u32) -> f32 {
  var sum = 0.0;
  for (var chunk = thread; chunk < num_chunks(); chunk += THREADS) {
    sum += sums[first + chunk] * exp(best[first + chunk].value - largest);
  }
  return largest + log(sum_across(sum, thread));
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
  let wanted = row_of(output).logprobs;
  if wanted == 0u {
    return;
  }
  let first = output * num_chunks();
  let at = LOGPROBS + 41u * output;
  enter_all(first, thread);
  var winner = winner_of(first, thread);
  let log_sum = log_sum_of(first, winner.value, thread);
  if thread == 0u {
    sampled[at] = bitcast<u32>(log_sum);
  }
  for (var i = 1u; i < wanted; i++) {
    if thread == 0u {
      sampled[at + i] = winner.id;
      sampled[at + 20u + i] = bitcast<u32>(winner.value - log_sum);
    }
    let chunk = min(winner.id, VOCAB - 1u) / CHUNK;
    let next = next_of(output, chunk, winner, thread);
    if chunk % THREADS == thread {
      entered[first + chunk] = next;
    }
    winner = winner_of(first, thread);
  }
}
