fn load_scales(i: u32) -> vec4<f32> {
  let s = unpack2x16float(side[i * SIDE_WORDS + HIGH_WORDS]);
  return vec4(s, s);
}
