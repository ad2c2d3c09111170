fn store_group(i: u32) {
  for (var e = 0u; e < 32u; e++) {
    quants[32u * i + e] = bitcast<u32>(value(e));
  }
}
