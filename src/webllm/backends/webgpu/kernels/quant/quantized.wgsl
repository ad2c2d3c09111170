// Integer weights. `bits*.wgsl` gives load_quants, `scale*.wgsl` or `min*.wgsl` load_scales.

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
