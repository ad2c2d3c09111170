// quants[128], upper bits[64], scales[16], d
fn unpack(at: u32, group: u32) {
  let d = half_at(at + 208u);
  for (var half = 0u; half < 2u; half++) {
    let sub = i32(byte_at(at + 192u + 2u * group + half) << 24u) >> 24u;
    scale[half] = d * f32(sub);
  }
  let k = group % 4u;
  for (var i = 0u; i < 32u; i++) {
    let low = byte_at(at + 64u * (group / 4u) + 32u * (k & 1u) + i) >> (4u * (k >> 1u));
    let upper = (byte_at(at + 128u + 32u * (group / 4u) + i) >> (2u * k)) & 3u;
    q[i] = i32((low & 15u) | (upper << 4u));
  }
}
