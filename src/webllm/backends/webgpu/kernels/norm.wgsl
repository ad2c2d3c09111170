// RMS norm, one workgroup for each row. Each row is read twice, the second time from the L2 cache.

const OUT = $out;

override COUNT: u32; // word of the step that holds the number of rows
override COLS: u32;
override EPS: f32;

$reduction

@group(0) @binding(0) var<storage, read> step: array<u32>;
@group(0) @binding(1) var<storage, read_write> x: array<vec4<f32>>; // [rows, cols / 4]
@group(0) @binding(2) var<storage, read> gamma: array<vec4<f32>>; // [cols / 4]

$write

$branch

fn inverse_rms(squares: f32, thread: u32) -> f32 {
  return inverseSqrt(sum_across(squares, thread) / f32(COLS) + EPS);
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = workgroup.x;
  if row >= step[COUNT] {
    return;
  }
  let first = row * COLS / 4u;
  let scale = inverse_rms(add_branch(first, thread), thread);
  for (var start = 0u; start < COLS; start += TILE_SIZE) {
    let count = min(TILE_SIZE, COLS - start);
    for (var i = thread; i < count / 4u; i += THREADS) {
      let v = x[first + start / 4u + i] * scale * gamma[start / 4u + i];
      tile[4u * i] = v.x;
      tile[4u * i + 1u] = v.y;
      tile[4u * i + 2u] = v.z;
      tile[4u * i + 3u] = v.w;
    }
    sync();
    for (var part = thread; part < count / 4u; part += THREADS) {
      let group = part / 8u;
      store_part((row * COLS + start) / 32u + group, 32u * group, part % 8u);
    }
    sync();
  }
}

//# no_branch
// Returns the thread's part of the row's sum of squares.
fn add_branch(first: u32, thread: u32) -> f32 {
  var squares = 0.0;
  for (var i = thread; i < COLS / 4u; i += THREADS) {
    squares += dot(x[first + i], x[first + i]);
  }
  return squares;
}

//# branch
@group(0) @binding(3) var<storage, read_write> branch: array<vec4<f32>>; // [rows, cols / 4]
@group(0) @binding(4) var<storage, read> branch_gamma: array<vec4<f32>>; // [cols / 4]

// x += rms_norm(branch) * branch_gamma; returns the thread's part of the new row's sum of squares.
// A thread has the same columns here and in `main`, so no barrier is needed between them.
fn add_branch(first: u32, thread: u32) -> f32 {
  var squares = 0.0;
  for (var i = thread; i < COLS / 4u; i += THREADS) {
    squares += dot(branch[first + i], branch[first + i]);
  }
  let scale = inverse_rms(squares, thread);
  squares = 0.0;
  for (var i = thread; i < COLS / 4u; i += THREADS) {
    let sum = x[first + i] + branch[first + i] * scale * branch_gamma[i];
    x[first + i] = sum;
    squares += dot(sum, sum);
  }
  return squares;
}
