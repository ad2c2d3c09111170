// The sampling parameters of an output row: sections of the step (see step_buffer.py).

override HEADER: u32; // words of the step
override SAMPLING: u32;
override VOCAB: u32;
override CHUNK: u32; // tokens of a workgroup

const LOWEST = -3.0e38; // logits below it are of masked tokens
const NO_TOKEN = 0xffffffffu;

@group(0) @binding(0) var<storage, read> step: array<u32>;

struct Row {
  temperature: f32,
  top_p: f32,
  min_p: f32,
  top_k: u32,
  seed: u32,
  repetition_penalty: f32,
  frequency_penalty: f32,
  presence_penalty: f32,
  logprobs: u32, // 1 + how many of the likeliest tokens; 0: none wanted
  first_edit: u32, // word of the step
  num_edits: u32,
}

fn row_of(output: u32) -> Row {
  let at = SAMPLING + 12u * output;
  return Row(
    bitcast<f32>(step[at]), bitcast<f32>(step[at + 1u]), bitcast<f32>(step[at + 2u]),
    step[at + 3u], step[at + 4u],
    bitcast<f32>(step[at + 5u]), bitcast<f32>(step[at + 6u]), bitcast<f32>(step[at + 7u]),
    step[at + 8u], step[at + 9u], step[at + 10u]
  );
}

fn num_outputs() -> u32 {
  return step[HEADER + 2u];
}

fn num_chunks() -> u32 {
  return (VOCAB + CHUNK - 1u) / CHUNK;
}
