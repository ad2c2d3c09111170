fn load_quants(i: u32) -> Quants {
  let q = quants[i];
  let shift = vec4(0u, 2u, 4u, 6u);
  let low = (vec4(side[i * SIDE_WORDS]) >> shift) & vec4(0x03030303u);
  let high = (vec4(side[i * SIDE_WORDS + 1u]) >> shift) & vec4(0x03030303u);
  return Quants(
    (q & vec4(0x0f0f0f0fu)) | (low << vec4(4u)),
    ((q >> vec4(4u)) & vec4(0x0f0f0f0fu)) | (high << vec4(4u))
  );
}
