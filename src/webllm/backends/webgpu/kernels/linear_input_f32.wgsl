@group(0) @binding(2) var<storage, read> x_values: array<vec4<f32>>;

struct XGroup {
  first: u32,  // index of the group's first four elements
}

fn load_x(i: u32) -> XGroup {
  return XGroup(8u * i);
}

fn x_value(x: XGroup, j: u32) -> vec4<f32> {
  return x_values[x.first + j];
}
