fn load_quants(i: u32) -> Quants {
  let q = quants[i];
  return Quants(q & vec4(0x0f0f0f0fu), (q >> vec4(4u)) & vec4(0x0f0f0f0fu));
}
