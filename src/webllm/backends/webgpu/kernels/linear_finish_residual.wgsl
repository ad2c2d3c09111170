// x += product; out = encoded x * gamma, still to be divided by the root mean square of the row,
// and the sums of squares that the consumer needs for it (linear_norm_fused.wgsl).
// PAIRS = 16: a workgroup makes one group of 32 columns.
@group(0) @binding(OUT + 2) var<storage, read_write> residual: array<f32>;  // [tokens, cols]
@group(0) @binding(OUT + 3) var<storage, read> gamma: array<f32>;           // [cols]

var<workgroup> tile: array<f32, TOKENS * 32u>;
var<workgroup> squares: array<f32, TOKENS * 32u>;

// int8: out_scales holds (scale, scale * sum) [tokens, groups], then (sum of squares, 0) likewise.
$store

fn finish(first: u32, thread: u32) {
  let group = (FIRST_ROW + first) / 32u;
  for (var i = thread; i < TOKENS * 32u; i += THREADS) {
    let column = 32u * group + i % 32u;
    let at = (first_token + i / 32u) * OUT_COLS + column;
    let x = residual[at] + pair_sum(i / 32u, i / 2u % 16u)[i % 2u];
    residual[at] = x;
    squares[i] = x * x;
    tile[i] = x * gamma[column];
  }
  workgroupBarrier();
  for (var i = thread; i < TOKENS * 8u; i += THREADS) {
    let token = i / 8u;
    let out = (first_token + token) * (OUT_COLS / 32u) + group;
    store_part(out, 32u * token, i % 8u);
    if i % 8u == 7u {
      var sum = 0.0;
      for (var k = 32u * token; k < 32u * token + 32u; k++) {
        sum += squares[k];
      }
      out_scales[MAX_TOKENS * (OUT_COLS / 32u) + out] = vec2(sum, 0.0);
    }
  }
}
