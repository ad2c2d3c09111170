// Reads a matrix (see matrix.py): load_group(i) loads group i of 32 columns, and
// group_value(group, j) is its elements 4j .. 4j + 3. The including kernel declares the bindings
// `quants: array<vec4<u32>>` and `scales: array<u32>`.

//# float32
struct Group {
  values: array<vec4<f32>, 8>,
}

fn load_group(i: u32) -> Group {
  var group: Group;
  for (var j = 0u; j < 8u; j++) {
    group.values[j] = bitcast<vec4<f32>>(quants[8u * i + j]);
  }
  return group;
}

fn group_value(group: Group, j: u32) -> vec4<f32> {
  return group.values[j];
}

//# float16
struct Group {
  values: array<vec4<f32>, 8>,
}

fn load_group(i: u32) -> Group {
  var group: Group;
  for (var j = 0u; j < 4u; j++) {
    let q = quants[4u * i + j];
    group.values[2u * j] = vec4(unpack2x16float(q.x), unpack2x16float(q.y));
    group.values[2u * j + 1u] = vec4(unpack2x16float(q.z), unpack2x16float(q.w));
  }
  return group;
}

fn group_value(group: Group, j: u32) -> vec4<f32> {
  return group.values[j];
}

//# bfloat16
struct Group {
  values: array<vec4<f32>, 8>,
}

fn widened(a: u32, b: u32) -> vec4<f32> {
  return bitcast<vec4<f32>>(vec4(a << 16u, a & 0xffff0000u, b << 16u, b & 0xffff0000u));
}

fn load_group(i: u32) -> Group {
  var group: Group;
  for (var j = 0u; j < 4u; j++) {
    let q = quants[4u * i + j];
    group.values[2u * j] = widened(q.x, q.y);
    group.values[2u * j + 1u] = widened(q.z, q.w);
  }
  return group;
}

fn group_value(group: Group, j: u32) -> vec4<f32> {
  return group.values[j];
}

//# quantized
// Integers. `load_quants` is one of bits*, `load_scales` one of half_scale, scale* and min*.
const SCALE_WORDS = ${scale_words}u;
const HIGH_WORDS = ${high_words}u;
const ZERO = ${zero}.0;

struct Quants {
  low: vec4<u32>,   // elements 0-15, a byte each, at most 7 bits or int8
  high: vec4<u32>,  // elements 16-31
}

struct Group {
  low: vec4<u32>,
  high: vec4<u32>,
  scales: vec4<f32>,  // (scale, min) of each half: value = scale * q + min
}

fn load_group(i: u32) -> Group {
  let q = load_quants(i);
  return Group(q.low, q.high, load_scales(i));
}

fn group_value(group: Group, j: u32) -> vec4<f32> {
  if j < 4u {
    return fma(vec4<f32>(unpack4xI8(group.low[j])), vec4(group.scales.x), vec4(group.scales.y));
  }
  return fma(vec4<f32>(unpack4xI8(group.high[j - 4u])), vec4(group.scales.z), vec4(group.scales.w));
}

$load_quants

$load_scales

//# bits4
fn load_quants(i: u32) -> Quants {
  let q = quants[i];
  return Quants(q & vec4(0x0f0f0f0fu), (q >> vec4(4u)) & vec4(0x0f0f0f0fu));
}

//# bits5
fn load_quants(i: u32) -> Quants {
  let q = quants[i];
  let h = vec4(scales[i * SCALE_WORDS]) >> vec4(0u, 1u, 2u, 3u);
  let low = (h & vec4(0x01010101u)) << vec4(4u);
  let high = h & vec4(0x10101010u);
  return Quants((q & vec4(0x0f0f0f0fu)) | low, ((q >> vec4(4u)) & vec4(0x0f0f0f0fu)) | high);
}

//# bits6
fn load_quants(i: u32) -> Quants {
  let q = quants[i];
  let shift = vec4(0u, 2u, 4u, 6u);
  let low = (vec4(scales[i * SCALE_WORDS]) >> shift) & vec4(0x03030303u);
  let high = (vec4(scales[i * SCALE_WORDS + 1u]) >> shift) & vec4(0x03030303u);
  return Quants(
    (q & vec4(0x0f0f0f0fu)) | (low << vec4(4u)),
    ((q >> vec4(4u)) & vec4(0x0f0f0f0fu)) | (high << vec4(4u))
  );
}

//# bits8
fn load_quants(i: u32) -> Quants {
  return Quants(quants[2u * i], quants[2u * i + 1u]);
}

//# half_scale
// One f16 a group, two groups a word.
fn load_scales(i: u32) -> vec4<f32> {
  let pair = unpack2x16float(scales[i >> 1u]);
  let s = select(pair.x, pair.y, (i & 1u) == 1u);
  return vec4(s, -ZERO * s, s, -ZERO * s);
}

//# scale32
fn load_scales(i: u32) -> vec4<f32> {
  let s = unpack2x16float(scales[i * SCALE_WORDS + HIGH_WORDS]).x;
  return vec4(s, -ZERO * s, s, -ZERO * s);
}

//# scale16
fn load_scales(i: u32) -> vec4<f32> {
  let s = unpack2x16float(scales[i * SCALE_WORDS + HIGH_WORDS]);
  return vec4(s.x, -ZERO * s.x, s.y, -ZERO * s.y);
}

//# min32
fn load_scales(i: u32) -> vec4<f32> {
  let s = unpack2x16float(scales[i * SCALE_WORDS + HIGH_WORDS]);
  return vec4(s, s);
}

//# min16
fn load_scales(i: u32) -> vec4<f32> {
  let at = i * SCALE_WORDS + HIGH_WORDS;
  return vec4(unpack2x16float(scales[at]), unpack2x16float(scales[at + 1u]));
}
