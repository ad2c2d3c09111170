// GEMM in f32, for every format of x and weight: tiles of 64 rows of x by 64 rows of the weight, 16
// columns at a time. The threads have the same results as in gemm_i8.wgsl.

const OUT = ${out}u;     // first binding of the output

override COUNT: u32;     // word of the step that holds the number of rows of x
override GROUPS: u32;    // of 32 columns
override ROWS: u32;      // of this shard of the weight
override FIRST_ROW: u32;
override OUT_COLS: u32;

@group(0) @binding(0) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> scales: array<u32>;
@group(0) @binding(${step}) var<storage, read> step: array<u32>;

$reader

$input

var<workgroup> xs: array<vec4<f32>, 256>;  // [column of the half group, row / 4]
var<workgroup> ws: array<vec4<f32>, 256>;

fn stage(thread: u32, x: XGroup, w: Group, half: u32) {
  let at = thread / 4u;
  let c = thread % 4u;
  for (var j = 0u; j < 4u; j++) {
    let a = x_value(x, 4u * half + j);
    let b = group_value(w, 4u * half + j);
    for (var i = 0u; i < 4u; i++) {
      xs[16u * (4u * j + i) + at][c] = a[i];
      ws[16u * (4u * j + i) + at][c] = b[i];
    }
  }
}

$epilogue

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let first_x = 64u * workgroup.y;
  let first_w = 64u * workgroup.x;
  let count = step[COUNT];
  _ = scales[0];
  if first_x >= count {
    return;
  }
  let tx = thread % 8u;
  let ty = thread / 8u;
  let x_group = min(first_x + thread, count - 1u) * GROUPS;
  let w_group = min(first_w + thread, ROWS - 1u) * GROUPS;
  var y0a = vec4<f32>();
  var y0b = vec4<f32>();
  var y1a = vec4<f32>();
  var y1b = vec4<f32>();
  var y2a = vec4<f32>();
  var y2b = vec4<f32>();
  var y3a = vec4<f32>();
  var y3b = vec4<f32>();
  var y4a = vec4<f32>();
  var y4b = vec4<f32>();
  var y5a = vec4<f32>();
  var y5b = vec4<f32>();
  var y6a = vec4<f32>();
  var y6b = vec4<f32>();
  var y7a = vec4<f32>();
  var y7b = vec4<f32>();
  for (var group = 0u; group < GROUPS; group++) {
    let x = load_x(x_group + group);
    let w = load_group(w_group + group);
    for (var half = 0u; half < 2u; half++) {
      stage(thread, x, w, half);
      workgroupBarrier();
      for (var k = 0u; k < 16u; k++) {
        let xa = xs[16u * k + ty];
        let xb = xs[16u * k + ty + 8u];
        let wa = ws[16u * k + tx];
        let wb = ws[16u * k + tx + 8u];
        y0a = fma(vec4(xa.x), wa, y0a);
        y0b = fma(vec4(xa.x), wb, y0b);
        y1a = fma(vec4(xa.y), wa, y1a);
        y1b = fma(vec4(xa.y), wb, y1b);
        y2a = fma(vec4(xa.z), wa, y2a);
        y2b = fma(vec4(xa.z), wb, y2b);
        y3a = fma(vec4(xa.w), wa, y3a);
        y3b = fma(vec4(xa.w), wb, y3b);
        y4a = fma(vec4(xb.x), wa, y4a);
        y4b = fma(vec4(xb.x), wb, y4b);
        y5a = fma(vec4(xb.y), wa, y5a);
        y5b = fma(vec4(xb.y), wb, y5b);
        y6a = fma(vec4(xb.z), wa, y6a);
        y6b = fma(vec4(xb.z), wb, y6b);
        y7a = fma(vec4(xb.w), wa, y7a);
        y7b = fma(vec4(xb.w), wb, y7b);
      }
      workgroupBarrier();
    }
  }
  let row = 4u * ty;
  let col = 4u * tx;
  put(first_x, first_w, row + 0u, col, count, y0a);
  put(first_x, first_w, row + 0u, col + 32u, count, y0b);
  put(first_x, first_w, row + 1u, col, count, y1a);
  put(first_x, first_w, row + 1u, col + 32u, count, y1b);
  put(first_x, first_w, row + 2u, col, count, y2a);
  put(first_x, first_w, row + 2u, col + 32u, count, y2b);
  put(first_x, first_w, row + 3u, col, count, y3a);
  put(first_x, first_w, row + 3u, col + 32u, count, y3b);
  put(first_x, first_w, row + 32u, col, count, y4a);
  put(first_x, first_w, row + 32u, col + 32u, count, y4b);
  put(first_x, first_w, row + 33u, col, count, y5a);
  put(first_x, first_w, row + 33u, col + 32u, count, y5b);
  put(first_x, first_w, row + 34u, col, count, y6a);
  put(first_x, first_w, row + 34u, col + 32u, count, y6b);
  put(first_x, first_w, row + 35u, col, count, y7a);
  put(first_x, first_w, row + 35u, col + 32u, count, y7b);
  finish(first_x, first_w, count, thread);
}
