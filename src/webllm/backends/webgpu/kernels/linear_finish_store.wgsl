fn finish(first: u32, thread: u32) {
  for (var i = thread; i < TOKENS * PAIRS; i += THREADS) {
    let pair = i % PAIRS;
    let sum = pair_sum(i / PAIRS, pair);
    let token = first_token + i / PAIRS;
    let row = first + 2u * pair;
    if row < ROWS {
      store(token, row, sum.x);
    }
    if row + 1u < ROWS {
      store(token, row + 1u, sum.y);
    }
  }
}
