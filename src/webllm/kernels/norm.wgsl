// RMS norm: a team a row. The row is read twice, the second time from the processor's own memory.

const OUT = $out;

override COUNT: u32; // word of the step that holds the number of rows
override COLS: u32;
override EPS: f32;

$team

@group(0) @binding(0) var<storage, read> step: array<u32>;
@group(0) @binding(1) var<storage, read_write> x: array<f32>; // [rows, cols]
@group(0) @binding(2) var<storage, read> gamma: array<f32>; // [cols]

$store

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
  let first = row * COLS;
  let scale = inverse_rms(add_branch(first, thread), thread);
  for (var start = 0u; start < COLS; start += TILE_SIZE) {
    let count = min(TILE_SIZE, COLS - start);
    for (var i = thread; i < count; i += THREADS) {
      tile[i] = x[first + start + i] * scale * gamma[start + i];
    }
    sync();
    for (var part = thread; part < count / 4u; part += THREADS) {
      let group = part / 8u;
      store_part((first + start) / 32u + group, 32u * group, part % 8u);
    }
    sync();
  }
}
