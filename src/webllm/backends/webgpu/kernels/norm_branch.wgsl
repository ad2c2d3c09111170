@group(0) @binding(3) var<storage, read_write> branch: array<vec4<f32>>; // [rows, cols / 4]
@group(0) @binding(4) var<storage, read> branch_gamma: array<vec4<f32>>; // [cols / 4]

// x += rms_norm(branch) * branch_gamma; the thread's share of the new row's sum of squares.
// Threads own the same columns here and in `main`, so that no barrier is needed between.
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
