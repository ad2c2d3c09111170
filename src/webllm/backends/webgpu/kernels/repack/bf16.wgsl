const BLOCK_BYTES = 64u;
const BLOCK_GROUPS = 1u;

var<private> values: array<f32, 32>;

fn unpack(at: u32, group: u32) {
  for (var i = 0u; i < 32u; i++) {
    values[i] = bitcast<f32>((byte_at(at + 2u * i) << 16u) | (byte_at(at + 2u * i + 1u) << 24u));
  }
}

fn value(e: u32) -> f32 {
  return values[e];
}
