// x as int8 groups of 32 with a scale each (target.ActivationFormat.I8).
@group(0) @binding(2) var<storage, read> x_values: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> x_scales: array<vec2<f32>>;

struct XGroup {
  low: vec4<u32>,   // elements 0-15, int8
  high: vec4<u32>,  // elements 16-31
  scale: f32,
  sum: f32,         // scale * sum of the group's int8
}

fn load_x(i: u32) -> XGroup {
  let scale = x_scales[i];
  return XGroup(x_values[2u * i], x_values[2u * i + 1u], scale.x, scale.y);
}

fn x_value(x: XGroup, j: u32) -> vec4<f32> {
  if j < 4u {
    return vec4<f32>(unpack4xI8(x.low[j])) * x.scale;
  }
  return vec4<f32>(unpack4xI8(x.high[j - 4u])) * x.scale;
}
