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
