fn finish(first: u32, thread: u32) {
  for (var i = thread; i < TOKENS * PAIRS; i += THREADS) {
    let token = i / PAIRS;
    let pair = i % PAIRS;
    let sum = pair_sum(token, pair);
    let row = first + 2u * pair;
    if row < ROWS {
      store(token, row, sum.x);
    }
    if row + 1u < ROWS {
      store(token, row + 1u, sum.y);
    }
  }
}
