// Quantizes 32 floats as ggml's quantize_row_q4_0_ref and quantize_row_q8_0_ref, bit for bit: WGSL
// leaves the rounding of a quotient and of a conversion to f16 open, so that both are here.

@group(0) @binding(4) var<storage, read_write> out_of_range: atomic<u32>;

$steps

const SMALLEST = 0x1p-100f;  // of groups that get codes: f16 has no such scale

fn size_bits(a: f32) -> u32 {  // those of NaN are the largest
  return bitcast<u32>(a) & 0x7fffffffu;
}

fn quotient(a: f32, b: f32) -> f32 {  // of positive numbers, to nearest even; it is no subnormal
  let divisor = (bitcast<u32>(b) & 0x7fffffu) | 0x800000u;
  var rest = (bitcast<u32>(a) & 0x7fffffu) | 0x800000u;
  var exponent = 127u + (bitcast<u32>(a) >> 23u) - (bitcast<u32>(b) >> 23u);
  if rest < divisor {
    rest <<= 1u;
    exponent -= 1u;
  }
  var bits = 0u;
  for (var i = 0u; i < 24u; i++) {
    let bit = u32(rest >= divisor);
    bits = (bits << 1u) | bit;
    rest = (rest - bit * divisor) << 1u;
  }
  bits += u32(rest > divisor || (rest == divisor && (bits & 1u) == 1u));
  return bitcast<f32>((exponent << 23u) + bits - 0x800000u);
}

fn rounded_to_f16(a: f32) -> f32 {  // to nearest even
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
  if abs(largest) >= SMALLEST {
    inverse = quotient(1.0, abs(step));
    inverse = select(inverse, -inverse, step < 0.0);
  }
  for (var e = 0u; e < 32u; e++) {
    q[e] = code(clamp(value(e) * inverse, -128.0, 128.0));  // a clamped product is not fused
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
  return select(0.0, quotient(abs(largest), STEPS), abs(largest) >= SMALLEST);
}

fn code(a: f32) -> i32 {  // halves go away from zero
  let whole = floor(abs(a));
  let rounded = i32(whole) + select(0, 1, abs(a) - whole >= 0.5);
  return select(rounded, -rounded, a < 0.0);
}
