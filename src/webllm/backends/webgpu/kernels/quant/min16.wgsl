fn load_scales(i: u32) -> vec4<f32> {
  let at = i * SIDE_WORDS + HIGH_WORDS;
  return vec4(unpack2x16float(side[at]), unpack2x16float(side[at + 1u]));
}
