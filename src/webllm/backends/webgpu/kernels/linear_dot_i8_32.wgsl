fn dot16(w: vec4<u32>, x: vec4<u32>) -> i32 {
  return dot4I8Packed(w.x, x.x) + dot4I8Packed(w.y, x.y)
    + dot4I8Packed(w.z, x.z) + dot4I8Packed(w.w, x.w);
}

fn group_dot(w: Group, x: XGroup) -> f32 {
  let product = f32(dot16(w.low, x.low) + dot16(w.high, x.high));
  return fma(w.scales.x * x.scale, product, w.scales.y * x.sum);
}
