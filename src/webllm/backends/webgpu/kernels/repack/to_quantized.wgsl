// Integer planes: low four bits, high bits, scales; constants from the format.

fn nibbles(j: u32) -> u32 {  // word j of the 4-bit plane
  var word = 0u;
  for (var b = 0u; b < 4u; b++) {
    word |= (u32(q[4u * j + b]) & 15u) << (8u * b);
    word |= (u32(q[16u + 4u * j + b]) & 15u) << (8u * b + 4u);
  }
  return word;
}

fn bytes(j: u32) -> u32 {
  var word = 0u;
  for (var b = 0u; b < 4u; b++) {
    word |= (u32(q[4u * j + b]) & 255u) << (8u * b);
  }
  return word;
}

fn store_quants(i: u32) {
  if BITS == 8u {
    for (var j = 0u; j < 8u; j++) {
      quants[8u * i + j] = bytes(j);
    }
    return;
  }
  for (var j = 0u; j < 4u; j++) {
    quants[4u * i + j] = nibbles(j);
  }
}

fn store_high(i: u32) {
  var words: array<u32, 2>;
  for (var e = 0u; e < 32u; e++) {
    let high = u32(q[e]) >> 4u;
    let byte = 8u * (e & 3u);
    if BITS == 5u {
      words[0] |= (high & 1u) << (byte + e / 4u);
    } else {
      words[e / 16u] |= (high & 3u) << (byte + 2u * ((e / 4u) & 3u));
    }
  }
  for (var j = 0u; j < HIGH_WORDS; j++) {
    atomicStore(&side[i * SIDE_WORDS + j], words[j]);
  }
}

fn store_scales(i: u32) {
  if SIDE_WORDS == 0u {  // two groups share a word, and may come from different launches
    atomicOr(&side[i >> 1u], pack2x16float(vec2(scale[0], 0.0)) << (16u * (i & 1u)));
    return;
  }
  let at = i * SIDE_WORDS + HIGH_WORDS;
  if !MINS {
    atomicStore(&side[at], pack2x16float(vec2(scale[0], scale[1])));
    return;
  }
  for (var j = 0u; j < SIDE_WORDS - HIGH_WORDS; j++) {
    atomicStore(&side[at + j], pack2x16float(vec2(scale[j], low_value[j])));
  }
}

fn store_group(i: u32) {
  for (var e = 0u; e < 32u; e++) {
    q[e] += select(TARGET_ZERO - SOURCE_ZERO, 0, MINS);
  }
  if MINS {
    low_value[0] -= f32(SOURCE_ZERO) * scale[0];
    low_value[1] -= f32(SOURCE_ZERO) * scale[1];
  }
  store_quants(i);
  store_high(i);
  store_scales(i);
}
