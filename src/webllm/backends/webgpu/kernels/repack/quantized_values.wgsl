fn value(e: u32) -> f32 {
  return scale[e / 16u] * f32(q[e] - SOURCE_ZERO) + low_value[e / 16u];
}
