// d, dmin, scales[12], fifth bits[32], quants[128]
$k_scales

fn unpack(at: u32, group: u32) {
  let sub = sub_scales(at + 4u, group);
  scale = both(half_at(at) * sub.x);
  low_value = both(-half_at(at + 2u) * sub.y);
  for (var i = 0u; i < 32u; i++) {
    let byte = byte_at(at + 48u + 32u * (group / 2u) + i);
    let fifth = (byte_at(at + 16u + i) >> group) & 1u;
    q[i] = i32(((byte >> (4u * (group % 2u))) & 15u) | (fifth << 4u));
  }
}
