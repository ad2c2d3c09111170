fn put(first_x: u32, first_w: u32, row: u32, col: u32, count: u32, value: vec4<f32>) {
  for (var i = 0u; i < 4u; i++) {
    if first_x + row < count && first_w + col + i < ROWS {
      store(first_x + row, first_w + col + i, value[i]);
    }
  }
}

fn finish(first_x: u32, first_w: u32, count: u32, thread: u32) {}
