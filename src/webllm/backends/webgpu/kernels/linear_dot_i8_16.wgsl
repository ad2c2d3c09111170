const ONES = vec4<u32>(0x01010101u);

fn dot16(w: vec4<u32>, x: vec4<u32>) -> i32 {
  return dot4I8Packed(w.x, x.x) + dot4I8Packed(w.y, x.y)
    + dot4I8Packed(w.z, x.z) + dot4I8Packed(w.w, x.w);
}

fn group_dot(w: Group, x: XGroup) -> f32 {
  let low = vec2(f32(dot16(w.low, x.low)), f32(dot16(ONES, x.low)));
  let high = vec2(f32(dot16(w.high, x.high)), f32(dot16(ONES, x.high)));
  return x.scale * (dot(w.scales.xy, low) + dot(w.scales.zw, high));
}
