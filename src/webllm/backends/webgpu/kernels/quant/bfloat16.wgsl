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
