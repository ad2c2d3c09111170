// The eight 6-bit (scale, min) pairs of a Q4_K or Q5_K block, in twelve bytes.
fn sub_scales(at: u32, i: u32) -> vec2<f32> {
  if i < 4u {
    return vec2(f32(byte_at(at + i) & 63u), f32(byte_at(at + i + 4u) & 63u));
  }
  let packed = byte_at(at + i + 4u);
  return vec2(
    f32((packed & 15u) | ((byte_at(at + i - 4u) >> 6u) << 4u)),
    f32((packed >> 4u) | ((byte_at(at + i) >> 6u) << 4u))
  );
}
