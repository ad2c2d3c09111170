// scales[16], quants[64], d, dmin
fn unpack(at: u32, group: u32) {
  let d = half_at(at + 80u);
  let dmin = half_at(at + 82u);
  for (var half = 0u; half < 2u; half++) {
    let packed = byte_at(at + 2u * group + half);
    scale[half] = d * f32(packed & 15u);
    low_value[half] = -dmin * f32(packed >> 4u);
  }
  for (var i = 0u; i < 32u; i++) {
    q[i] = i32((byte_at(at + 16u + 32u * (group / 4u) + i) >> (2u * (group % 4u))) & 3u);
  }
}
