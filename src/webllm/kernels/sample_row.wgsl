override HEADER: u32; // words of the step
override SAMPLING: u32;
override VOCAB: u32;
override CHUNK: u32; // tokens a team looks at

const LOWEST = -3.0e38; // a logit below is a masked token

@group(0) @binding(0) var<storage, read> step: array<u32>;

struct Row {
  temperature: f32,
  top_p: f32,
  min_p: f32,
  top_k: u32,
  seed: u32,
}

fn row_of(output: u32) -> Row {
  let at = SAMPLING + 8u * output;
  return Row(
    bitcast<f32>(step[at]), bitcast<f32>(step[at + 1u]), bitcast<f32>(step[at + 2u]),
    step[at + 3u], step[at + 4u]
  );
}

fn num_outputs() -> u32 {
  return step[HEADER + 2u];
}

fn num_chunks() -> u32 {
  return (VOCAB + CHUNK - 1u) / CHUNK;
}
