fn load_scales(i: u32) -> vec4<f32> {
  let s = unpack2x16float(side[i * SIDE_WORDS + HIGH_WORDS]).x;
  return vec4(s, -ZERO * s, s, -ZERO * s);
}
