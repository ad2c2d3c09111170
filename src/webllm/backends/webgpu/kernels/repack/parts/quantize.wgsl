// Quantizes 32 floats as ggml's quantize_row_q4_0_ref and quantize_row_q8_0_ref.

@group(0) @binding(4) var<storage, read_write> out_of_range: atomic<u32>;

$steps

const SMALLEST_NORMAL = 0x1p-126f;

fn size_bits(a: f32) -> u32 {  // those of NaN are the largest
  return bitcast<u32>(a) & 0x7fffffffu;
}

fn rounded_to_f16(a: f32) -> f32 {  // to nearest even, which pack2x16float need not do
  let bits = bitcast<u32>(a);
  let rounded = bitcast<f32>((bits + 0xfffu + ((bits >> 13u) & 1u)) & 0xffffe000u);
  return select(rounded, round(a * 0x1p24f) * 0x1p-24f, abs(a) < 0x1p-14f);
}

fn quantize() {
  var largest = value(0u);  // the first of them, with its sign
  for (var e = 1u; e < 32u; e++) {
    let x = value(e);
    if size_bits(x) > size_bits(largest) {
      largest = x;
    }
  }
  if size_bits(largest) > bitcast<u32>(STEPS * 65504.0) {
    atomicStore(&out_of_range, 1u);
  }
  let step = step_of(largest);
  var inverse = 0.0;
  if abs(step) >= SMALLEST_NORMAL {
    inverse = 1.0 / step;
  }
  for (var e = 0u; e < 32u; e++) {
    q[e] = code(value(e) * inverse);
  }
  scale = both(rounded_to_f16(step));
}

//# q4_0
const STEPS = 8f;

fn step_of(largest: f32) -> f32 {
  return largest * -0.125;
}

fn code(a: f32) -> i32 {
  return min(i32(a + 8.5), 15);
}

//# q8_0
const STEPS = 127f;

fn step_of(largest: f32) -> f32 {
  return abs(largest) / STEPS;
}

fn code(a: f32) -> i32 {  // halves go away from zero
  let whole = floor(abs(a));
  let rounded = i32(whole) + select(0, 1, abs(a) - whole >= 0.5);
  return select(rounded, -rounded, a < 0.0);
}
