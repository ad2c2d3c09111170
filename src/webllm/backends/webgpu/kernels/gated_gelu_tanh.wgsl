fn activated(x: f32) -> f32 {
  // tanh overflows to NaN on some drivers; it is 1 within f32 long before 10.
  let t = clamp(0.7978845608028654 * (x + 0.044715 * x * x * x), -10.0, 10.0);
  return 0.5 * x * (1.0 + tanh(t));
}
