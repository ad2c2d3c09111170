fn unpack(at: u32, group: u32) {
  scale = both(half_at(at));
  low_value = both(half_at(at + 2u));
  let fifth = word_at(at + 4u);
  for (var i = 0u; i < 16u; i++) {
    let byte = byte_at(at + 8u + i);
    q[i] = i32((byte & 15u) | (((fifth >> i) & 1u) << 4u));
    q[i + 16u] = i32((byte >> 4u) | (((fifth >> (i + 16u)) & 1u) << 4u));
  }
}
