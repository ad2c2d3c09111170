@group(0) @binding(OUT + 1) var<storage, read> bias: array<f32>;  // [rows of the whole weight]

fn bias_of(row: u32) -> f32 {
  return bias[row];
}
