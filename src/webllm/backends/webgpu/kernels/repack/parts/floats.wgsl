// Floats: a block is 32 of them.

//# f32
var<private> values: array<f32, 32>;

fn unpack(at: u32, group: u32) {
  for (var i = 0u; i < 32u; i++) {
    values[i] = bitcast<f32>(blocks[at / 4u + i]);
  }
}

fn value(e: u32) -> f32 {
  return values[e];
}

//# f16
var<private> values: array<f32, 32>;

fn unpack(at: u32, group: u32) {
  for (var i = 0u; i < 32u; i++) {
    values[i] = half_at(at + 2u * i);
  }
}

fn value(e: u32) -> f32 {
  return values[e];
}

//# bf16
var<private> values: array<f32, 32>;

fn unpack(at: u32, group: u32) {
  for (var i = 0u; i < 32u; i++) {
    values[i] = bitcast<f32>((byte_at(at + 2u * i) << 16u) | (byte_at(at + 2u * i + 1u) << 24u));
  }
}

fn value(e: u32) -> f32 {
  return values[e];
}

//# copy16
// Copies two-byte floats as they are.

var<private> source: u32;

fn unpack(at: u32, group: u32) {
  source = at / 4u;
}

fn store_group(i: u32) {
  for (var j = 0u; j < 16u; j++) {
    quants[16u * i + j] = blocks[source + j];
  }
}
