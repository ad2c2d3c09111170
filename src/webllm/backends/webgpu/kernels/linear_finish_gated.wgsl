// Rows come in pairs (gate, up); activation(gate) * up is encoded in groups of 32 columns.
// PAIRS is a multiple of 32.
var<workgroup> tile: array<f32, TOKENS * PAIRS>;

$activation

$store

fn finish(first: u32, thread: u32) {
  for (var i = thread; i < TOKENS * PAIRS; i += THREADS) {
    let sum = pair_sum(i / PAIRS, i % PAIRS);
    tile[i] = activated(sum.x) * sum.y;
  }
  workgroupBarrier();
  for (var i = thread; i < TOKENS * PAIRS / 4u; i += THREADS) {
    let group = i / 8u;
    let token = group / (PAIRS / 32u);
    let column = (FIRST_ROW + first) / 64u + group % (PAIRS / 32u);
    if column < OUT_COLS / 32u {
      store_part((first_token + token) * (OUT_COLS / 32u) + column, 32u * group, i % 8u);
    }
  }
}
