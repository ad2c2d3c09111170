// Copies output rows, one thread a word.

override NUM_OUTPUTS: u32; // words of the step
override OUTPUT_ROWS: u32;
override ROW_WORDS: u32;

@group(0) @binding(0) var<storage, read> step: array<u32>;
@group(0) @binding(1) var<storage, read_write> x: array<u32>; // [tokens, row_words]
@group(0) @binding(2) var<storage, read_write> out: array<u32>; // [outputs, row_words]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let output = id.y;
  let word = id.x;
  if output >= step[NUM_OUTPUTS] || word >= ROW_WORDS {
    return;
  }
  out[output * ROW_WORDS + word] = x[step[OUTPUT_ROWS + output] * ROW_WORDS + word];
}
