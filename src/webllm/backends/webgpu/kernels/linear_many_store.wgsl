// Four columns at a time where all rows of the output begin at a multiple of four.
override ACCUMULATE: bool;

@group(0) @binding(OUT) var<storage, read_write> y: array<vec4<f32>>;

fn put(first_x: u32, first_w: u32, row: u32, col: u32, count: u32, value: vec4<f32>) {
  let r = first_w + col;
  if first_x + row >= count || r >= ROWS {
    return;
  }
  let at = ((first_x + row) * OUT_COLS + FIRST_ROW + r) / 4u;
  let first = FIRST_ROW + r;
  let sum = value
    + vec4(bias_of(first), bias_of(first + 1u), bias_of(first + 2u), bias_of(first + 3u));
  if ACCUMULATE {
    y[at] += sum;
  } else {
    y[at] = sum;
  }
}

fn finish(first_x: u32, first_w: u32, count: u32, thread: u32) {}
