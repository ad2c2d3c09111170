// Epilogues: what a kernel does with the elements of a product once they are computed. They are
// stored as f32, or gated and encoded; product.py has the classes, and each kernel its own part.
//
// bias_of(row) is added to every row. A row of the weight is a column of the output.

//# bias
@group(0) @binding(OUT + 1) var<storage, read> bias: array<f32>;  // [rows of the whole weight]

fn bias_of(row: u32) -> f32 {
  return bias[row];
}

//# no_bias
fn bias_of(row: u32) -> f32 {
  return 0.0;
}

//# store
// Stores f32 [tokens, OUT_COLS]; `row` is a row of the shard.
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

//# silu
fn activated(x: f32) -> f32 {
  return x / (1.0 + exp(-x));
}

//# gelu_tanh
fn activated(x: f32) -> f32 {
  // tanh overflows to NaN on some drivers; in f32 it is 1 well below 10.
  let t = clamp(0.7978845608028654 * (x + 0.044715 * x * x * x), -10.0, 10.0);
  return 0.5 * x * (1.0 + tanh(t));
}

//# gemm_store
// A GEMM kernel calls `put` with four neighbouring columns of its tile of 64 by 64, until the tile
// is complete, then `finish` once. first_x, first_w: the tile's first rows of x and of the weight.
// row, col: within the tile. count: rows of x in all.
fn put(first_x: u32, first_w: u32, row: u32, col: u32, count: u32, value: vec4<f32>) {
  for (var i = 0u; i < 4u; i++) {
    if first_x + row < count && first_w + col + i < ROWS {
      store(first_x + row, first_w + col + i, value[i]);
    }
  }
}

fn finish(first_x: u32, first_w: u32, count: u32, thread: u32) {}

//# gemm_store4
// As gemm_store, four columns at a time: OUT_COLS, ROWS and FIRST_ROW are multiples of four.
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

//# gemm_gated
// The weight's rows are pairs (gate, up): 64 of them make one group of 32 columns of the output.
var<workgroup> tile: array<f32, 2048>;  // [row of x, column]

$activation

$write

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
