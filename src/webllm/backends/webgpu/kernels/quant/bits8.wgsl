fn load_quants(i: u32) -> Quants {
  return Quants(quants[2u * i], quants[2u * i + 1u]);
}
