fn load_quants(i: u32) -> Quants {
  let q = quants[i];
  let h = vec4(side[i * SIDE_WORDS]) >> vec4(0u, 1u, 2u, 3u);
  let low = (h & vec4(0x01010101u)) << vec4(4u);
  let high = h & vec4(0x10101010u);
  return Quants((q & vec4(0x0f0f0f0fu)) | low, ((q >> vec4(4u)) & vec4(0x0f0f0f0fu)) | high);
}
