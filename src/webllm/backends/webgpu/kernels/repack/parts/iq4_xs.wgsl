// d, upper bits of scales[2], scales[4], nibbles[128]
$iq4_values

fn unpack(at: u32, group: u32) {
  let low = (byte_at(at + 4u + group / 2u) >> (4u * (group % 2u))) & 15u;
  let high = (byte_at(at + 2u + group / 4u) >> (2u * (group % 4u))) & 3u;
  scale = both(half_at(at) * (f32(low | (high << 4u)) - 32.0));
  look_up(at + 8u + 16u * group);
}
