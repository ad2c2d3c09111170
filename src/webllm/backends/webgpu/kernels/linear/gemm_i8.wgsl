// GEMM of int8 (prefill): tiles of 64 rows of x by 64 rows of the weight, 32 columns at a time.
// Each of the 64 threads computes 8 by 8 results: rows 4 ty .. 4 ty + 3 of x and those 32 further
// on, by rows 4 tx .. 4 tx + 3 of the weight and those 32 further on.

const OUT = ${out}u;        // first binding of the output
const HALVES = ${halves}u;  // scales of a group of the weight
const MINS = ${mins};

override COUNT: u32;        // word of the step that holds the number of rows of x
override GROUPS: u32;       // of 32 columns
override ROWS: u32;         // of this shard of the weight
override FIRST_ROW: u32;
override OUT_COLS: u32;

const WORDS = 8u / HALVES;  // of a half group; unrolled here, since drivers do not: a third faster

@group(0) @binding(0) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> scales: array<u32>;
@group(0) @binding(4) var<storage, read> step: array<u32>;

$reader

$input

var<workgroup> xs: array<vec4<u32>, 128>;             // [word of the group, row / 4]
var<workgroup> ws: array<vec4<u32>, 128>;
var<workgroup> x_scale: array<vec4<f32>, 16>;         // [row / 4]
var<workgroup> x_sum: array<vec4<f32>, 16 * HALVES>;  // [half, row / 4]
var<workgroup> w_scale: array<vec4<f32>, 16 * HALVES>;
var<workgroup> w_min: array<vec4<f32>, 16 * HALVES>;

// Returns q - ZERO in each byte, for q below 128; with mins there is no zero point to subtract.
fn centred(q: vec4<u32>) -> vec4<u32> {
  if MINS || ZERO == 0.0 {
    return q;
  }
  return ((q | vec4(0x80808080u)) - vec4(u32(ZERO) * 0x01010101u)) ^ vec4(0x80808080u);
}

fn sum_of(x: vec4<u32>) -> f32 {
  let ones = 0x01010101u;
  return f32(dot4I8Packed(x.x, ones) + dot4I8Packed(x.y, ones)
    + dot4I8Packed(x.z, ones) + dot4I8Packed(x.w, ones));
}

fn stage(thread: u32, x: XGroup, w: Group) {
  let at = thread / 4u;
  let c = thread % 4u;
  let low = centred(w.low);
  let high = centred(w.high);
  xs[0u + at][c] = x.low.x;
  xs[64u + at][c] = x.high.x;
  ws[0u + at][c] = low.x;
  ws[64u + at][c] = high.x;
  xs[16u + at][c] = x.low.y;
  xs[80u + at][c] = x.high.y;
  ws[16u + at][c] = low.y;
  ws[80u + at][c] = high.y;
  xs[32u + at][c] = x.low.z;
  xs[96u + at][c] = x.high.z;
  ws[32u + at][c] = low.z;
  ws[96u + at][c] = high.z;
  xs[48u + at][c] = x.low.w;
  xs[112u + at][c] = x.high.w;
  ws[48u + at][c] = low.w;
  ws[112u + at][c] = high.w;
  x_scale[at][c] = x.scale;
  w_scale[at][c] = w.scales.x;
  if MINS {
    x_sum[at][c] = x.sum;
    w_min[at][c] = w.scales.y;
  }
  if HALVES == 2u {
    w_scale[at + 16u * (HALVES - 1u)][c] = w.scales.z;
    if MINS {
      x_sum[at][c] = x.scale * sum_of(x.low);
      x_sum[at + 16u * (HALVES - 1u)][c] = x.scale * sum_of(x.high);
      w_min[at + 16u * (HALVES - 1u)][c] = w.scales.w;
    }
  }
}

fn dots(x: u32, w: vec4<u32>) -> vec4<i32> {
  return vec4(dot4I8Packed(x, w.x), dot4I8Packed(x, w.y), dot4I8Packed(x, w.z), dot4I8Packed(x, w.w));
}

// Returns the scaled products of one row of x by four rows of the weight.
fn scaled(products: vec4<i32>, scale: f32, sum: f32, w: vec4<f32>, low: vec4<f32>) -> vec4<f32> {
  let value = vec4<f32>(products) * scale * w;
  if MINS {
    return value + sum * low;
  }
  return value;
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
  var x = load_x(x_group);
  var w = load_group(w_group);
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
  for (var group = 1u; group <= GROUPS; group++) {
    stage(thread, x, w);
    workgroupBarrier();
    let next = min(group, GROUPS - 1u);
    x = load_x(x_group + next);
    w = load_group(w_group + next);
    for (var half = 0u; half < HALVES; half++) {
      var p0a = vec4<i32>();
      var p0b = vec4<i32>();
      var p1a = vec4<i32>();
      var p1b = vec4<i32>();
      var p2a = vec4<i32>();
      var p2b = vec4<i32>();
      var p3a = vec4<i32>();
      var p3b = vec4<i32>();
      var p4a = vec4<i32>();
      var p4b = vec4<i32>();
      var p5a = vec4<i32>();
      var p5b = vec4<i32>();
      var p6a = vec4<i32>();
      var p6b = vec4<i32>();
      var p7a = vec4<i32>();
      var p7b = vec4<i32>();
      $words
      let at = 16u * half;
      let da = x_scale[ty];
      let db = x_scale[ty + 8u];
      let sa = x_sum[at + ty];
      let sb = x_sum[at + ty + 8u];
      let va = w_scale[at + tx];
      let vb = w_scale[at + tx + 8u];
      let ma = w_min[at + tx];
      let mb = w_min[at + tx + 8u];
      y0a += scaled(p0a, da.x, sa.x, va, ma);
      y0b += scaled(p0b, da.x, sa.x, vb, mb);
      y1a += scaled(p1a, da.y, sa.y, va, ma);
      y1b += scaled(p1b, da.y, sa.y, vb, mb);
      y2a += scaled(p2a, da.z, sa.z, va, ma);
      y2b += scaled(p2b, da.z, sa.z, vb, mb);
      y3a += scaled(p3a, da.w, sa.w, va, ma);
      y3b += scaled(p3b, da.w, sa.w, vb, mb);
      y4a += scaled(p4a, db.x, sb.x, va, ma);
      y4b += scaled(p4b, db.x, sb.x, vb, mb);
      y5a += scaled(p5a, db.y, sb.y, va, ma);
      y5b += scaled(p5b, db.y, sb.y, vb, mb);
      y6a += scaled(p6a, db.z, sb.z, va, ma);
      y6b += scaled(p6b, db.z, sb.z, vb, mb);
      y7a += scaled(p7a, db.w, sb.w, va, ma);
      y7b += scaled(p7b, db.w, sb.w, vb, mb);
    }
    workgroupBarrier();
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

//# word
// One word of the half group: four int8 of each row of x by four of each row of the weight.
{
  let xa = xs[16u * (WORDS * half + ${word}u) + ty];
  let xb = xs[16u * (WORDS * half + ${word}u) + ty + 8u];
  let wa = ws[16u * (WORDS * half + ${word}u) + tx];
  let wb = ws[16u * (WORDS * half + ${word}u) + tx + 8u];
  p0a += dots(xa.x, wa);
  p0b += dots(xa.x, wb);
  p1a += dots(xa.y, wa);
  p1b += dots(xa.y, wb);
  p2a += dots(xa.z, wa);
  p2b += dots(xa.z, wb);
  p3a += dots(xa.w, wa);
  p3b += dots(xa.w, wb);
  p4a += dots(xb.x, wa);
  p4b += dots(xb.x, wb);
  p5a += dots(xb.y, wa);
  p5b += dots(xb.y, wb);
  p6a += dots(xb.z, wa);
  p6b += dots(xb.z, wb);
  p7a += dots(xb.w, wa);
  p7b += dots(xb.w, wb);
}
