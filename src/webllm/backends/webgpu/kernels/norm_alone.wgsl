// The thread's share of the row's sum of squares.
fn add_branch(first: u32, thread: u32) -> f32 {
  var squares = 0.0;
  for (var i = thread; i < COLS / 4u; i += THREADS) {
    squares += dot(x[first + i], x[first + i]);
  }
  return squares;
}
