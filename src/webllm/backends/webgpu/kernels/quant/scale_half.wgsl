fn load_scales(i: u32) -> vec4<f32> {
  let pair = unpack2x16float(side[i >> 1u]);
  let s = select(pair.x, pair.y, (i & 1u) == 1u);
  return vec4(s, -ZERO * s, s, -ZERO * s);
}
