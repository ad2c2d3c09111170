// Rows come in pairs (gate, up): a tile of 64 makes one group of 32 columns of the output.
var<workgroup> tile: array<f32, 2048>;  // [row of x, column]

$activation

$store

fn put(first_x: u32, first_w: u32, row: u32, col: u32, count: u32, value: vec4<f32>) {
  tile[32u * row + col / 2u] = activated(value.x) * value.y;
  tile[32u * row + col / 2u + 1u] = activated(value.z) * value.w;
}

fn finish(first_x: u32, first_w: u32, count: u32, thread: u32) {
  workgroupBarrier();
  let column = (FIRST_ROW + first_w) / 64u;
  for (var i = thread; i < 512u; i += 64u) {
    let row = i / 8u;
    if first_x + row < count {
      store_part((first_x + row) * (OUT_COLS / 32u) + column, 32u * row, i % 8u);
    }
  }
}
