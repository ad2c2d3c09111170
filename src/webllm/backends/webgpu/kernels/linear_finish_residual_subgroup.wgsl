// See linear_finish_residual.wgsl; with subgroups of 32 threads, that hold a group each.
@group(0) @binding(OUT) var<storage, read_write> out_values: array<u32>;        // int8
// (scale, scale * sum) [tokens, groups], then (sum of squares, 0) [tokens, groups]
@group(0) @binding(OUT + 1) var<storage, read_write> out_scales: array<vec2<f32>>;
@group(0) @binding(OUT + 2) var<storage, read_write> residual: array<f32>;      // [tokens, cols]
@group(0) @binding(OUT + 3) var<storage, read> gamma: array<f32>;               // [cols]

fn finish(first: u32, thread: u32) {
  let lane = thread % 32u;
  let group = (FIRST_ROW + first) / 32u;
  let column = 32u * group + lane;
  for (var start = 0u; start < TOKENS; start += THREADS / 32u) {
    let token = min(start + thread / 32u, TOKENS - 1u);
    let mine = start + thread / 32u < TOKENS;
    let at = (first_token + token) * OUT_COLS + column;
    let x = residual[at] + pair_sum(token, lane / 2u)[lane % 2u];
    let value = x * gamma[column];
    let largest = subgroupMax(abs(value));
    let q = i32(round(value * select(0.0, 127.0 / largest, largest > 0.0)));
    let sum = subgroupAdd(q);
    let squares = subgroupAdd(x * x);
    let byte = (u32(q) & 255u) << (8u * (lane % 4u));
    let pair = byte | subgroupShuffleXor(byte, 1u);
    let word = pair | subgroupShuffleXor(pair, 2u);
    if mine {
      residual[at] = x;
      let out = (first_token + token) * (OUT_COLS / 32u) + group;
      if lane % 4u == 0u {
        out_values[out * 8u + lane / 4u] = word;
      }
      if lane == 0u {
        let scale = largest / 127.0;
        out_scales[out] = vec2(scale, scale * f32(sum));
        out_scales[MAX_TOKENS * (OUT_COLS / 32u) + out] = vec2(squares, 0.0);
      }
    }
  }
}
