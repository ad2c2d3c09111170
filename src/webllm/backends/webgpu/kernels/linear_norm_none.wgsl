var<private> input_scale: array<f32, TOKENS>;

fn find_input_scale(thread: u32) {
  for (var token = 0u; token < TOKENS; token++) {
    input_scale[token] = 1.0;
  }
}
