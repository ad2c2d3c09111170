// third bits[32], quants[64], scales[12], d

fn sub_scale(at: u32, i: u32) -> f32 {
  let low = (byte_at(at + i % 8u) >> (4u * (i / 8u))) & 15u;
  let high = (byte_at(at + 8u + i % 4u) >> (2u * (i / 4u))) & 3u;
  return f32(low | (high << 4u)) - 32.0;
}

fn unpack(at: u32, group: u32) {
  let d = half_at(at + 108u);
  for (var half = 0u; half < 2u; half++) {
    scale[half] = d * sub_scale(at + 96u, 2u * group + half);
  }
  for (var i = 0u; i < 32u; i++) {
    let low = (byte_at(at + 32u + 32u * (group / 4u) + i) >> (2u * (group % 4u))) & 3u;
    let third = (byte_at(at + i) >> group) & 1u;
    q[i] = i32(low | (third << 2u));
  }
}
