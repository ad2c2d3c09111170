fn unpack(at: u32, group: u32) {
  scale = both(half_at(at));
  for (var i = 0u; i < 32u; i++) {
    q[i] = i32(byte_at(at + 2u + i) << 24u) >> 24u;
  }
}
