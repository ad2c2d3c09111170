// Applies biases and penalties to the logits of an output row. The entries name a token only once.

override OUTPUT_ROWS: u32; // words of the step
override TOKEN_IDS: u32;

$reduction

$row

@group(0) @binding(1) var<storage, read_write> logits: array<f32>; // [outputs, vocab]
@group(0) @binding(2) var<storage, read> sampled: array<u32>; // by the previous step

const FROM_SAMPLED = 0x80000000u;
const IN_PROMPT = 0x80000000u;

fn edit_logit(row: Row, output: u32, token: u32, bias: f32, count: u32) {
  if token >= VOCAB {
    return;
  }
  let at = output * VOCAB + token;
  var logit = logits[at] + bias;
  if count != 0u {
    let penalty = row.repetition_penalty;
    logit = select(logit * penalty, logit / penalty, logit > 0.0);
  }
  let times = count & ~IN_PROMPT;
  let presence = select(0.0, row.presence_penalty, times > 0u);
  logits[at] = logit - (row.frequency_penalty * f32(times) + presence);
}

// Returns 1 for the entry of `unknown`, a sampled token that the counts do not include yet.
fn apply(row: Row, output: u32, entry: u32, unknown: u32) -> f32 {
  if entry >= row.num_edits {
    return 0.0;
  }
  let at = row.first_edit + 3u * entry;
  let token = step[at];
  let is_unknown = token == unknown;
  let count = step[at + 2u] + select(0u, 1u, is_unknown);
  edit_logit(row, output, token, bitcast<f32>(step[at + 1u]), count);
  return select(0.0, 1.0, is_unknown);
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
  let input = step[TOKEN_IDS + step[OUTPUT_ROWS + output]];
  var unknown = NO_TOKEN;
  if (input & FROM_SAMPLED) != 0u {
    unknown = sampled[input & ~FROM_SAMPLED];
  }
  var met = 0.0;
  // Four entries an iteration: lavapipe ends every loop once a thread has done 65535 iterations.
  for (var entry = thread; entry < row.num_edits; entry += 4u * THREADS) {
    met += apply(row, output, entry, unknown);
    met += apply(row, output, entry + THREADS, unknown);
    met += apply(row, output, entry + 2u * THREADS, unknown);
    met += apply(row, output, entry + 3u * THREADS, unknown);
  }
  let is_listed = sum_across(met, thread) > 0.0;
  if thread == 0u && !is_listed {
    edit_logit(row, output, unknown, 0.0, 1u);
  }
}
