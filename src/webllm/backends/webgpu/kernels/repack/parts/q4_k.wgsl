// d, dmin, scales[12], quants[128]
$k_scales

fn unpack(at: u32, group: u32) {
  let sub = sub_scales(at + 4u, group);
  scale = both(half_at(at) * sub.x);
  low_value = both(-half_at(at + 2u) * sub.y);
  for (var i = 0u; i < 32u; i++) {
    let byte = byte_at(at + 16u + 32u * (group / 2u) + i);
    q[i] = i32((byte >> (4u * (group % 2u))) & 15u);
  }
}
