// Rows come in pairs (gate, up); activations are f32 where there are no barriers.
@group(0) @binding(OUT) var<storage, read_write> y: array<f32>;

$activation

fn finish(token: u32, row: u32, sums: vec4<f32>) {
  let at = token * OUT_COLS + (FIRST_ROW + row) / 2u;
  y[at] = activated(sums.x) * sums.y;
  y[at + 1u] = activated(sums.z) * sums.w;
}
