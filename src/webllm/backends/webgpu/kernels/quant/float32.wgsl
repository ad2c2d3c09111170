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
