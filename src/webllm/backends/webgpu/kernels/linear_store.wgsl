// Output as f32 [tokens, OUT_COLS]; `row` is that of the shard.
override ACCUMULATE: bool;

@group(0) @binding(OUT) var<storage, read_write> y: array<f32>;

fn store(token: u32, row: u32, value: f32) {
  let at = token * OUT_COLS + FIRST_ROW + row;
  let sum = value + bias_of(FIRST_ROW + row);
  if ACCUMULATE {
    y[at] += sum;
  } else {
    y[at] = sum;
  }
}
