// GEMV (decode): products of TOKENS rows of x, bound by the time to read the weight once for them.
//
// LANES threads share a pair of rows of the weight, each taking every LANES-th group of 32 columns.
// A workgroup takes PAIRS_AT_ONCE pairs at a time, LOOPS times: PAIRS = PAIRS_AT_ONCE * LOOPS.

// Array lengths are constants, not overrides: naga 29 aborts on some expressions of overrides.
const TOKENS = ${tokens}u;
const PAIRS = ${pairs}u;
const PARTS = ${parts}u;     // partial sums of a row after add_lanes
const THREADS = ${threads}u;
const OUT = ${out}u;       // first binding of the output

override GROUPS: u32;      // of 32 columns
override ROWS: u32;        // of this shard of the weight
override FIRST_ROW: u32;   // of this shard
override LANES: u32;
override PAIRS_AT_ONCE: u32;
override LOOPS: u32;
override OUT_COLS: u32;
override MAX_TOKENS: u32;  // rows of x in all

@group(0) @binding(0) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> scales: array<u32>;

var<private> first_token: u32;  // of this workgroup

var<workgroup> partials: array<vec2<f32>, TOKENS * PAIRS * PARTS>;  // [tokens, pairs, parts]

$reader

$input

$dot

$lanes

$input_scale

// Returns the products of both rows of a pair.
fn pair_sum(token: u32, pair: u32) -> vec2<f32> {
  let first = (token * PAIRS + pair) * PARTS;
  var sum = partials[first];
  for (var i = 1u; i < PARTS; i++) {
    sum += partials[first + i];
  }
  return sum * input_scale[token];
}

$epilogue

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let first = (workgroup.y * num_workgroups.x + workgroup.x) * 2u * PAIRS;
  first_token = workgroup.z * TOKENS;
  let lane = thread % LANES;
  let lane_pair = thread / LANES;
  _ = scales[0];
  for (var i = 0u; i < LOOPS; i++) {
    let pair = i * PAIRS_AT_ONCE + lane_pair;
    let row = min(first + 2u * pair, ROWS - 1u);
    let next = min(row + 1u, ROWS - 1u);
    var sums = array<vec2<f32>, TOKENS>();  // naga 29 clears a variable without a value only once
    for (var group = lane; group < GROUPS; group += LANES) {
      let a = load_group(row * GROUPS + group);
      let b = load_group(next * GROUPS + group);
      for (var token = 0u; token < TOKENS; token++) {
        let x = load_x((first_token + token) * GROUPS + group);
        sums[token] += vec2(group_dot(a, x), group_dot(b, x));
      }
    }
    for (var token = 0u; token < TOKENS; token++) {
      let sum = add_lanes(sums[token], thread);
      if is_part(thread) {
        partials[(token * PAIRS + pair) * PARTS + part_of(lane)] = sum;
      }
    }
  }
  find_input_scale(thread);
  workgroupBarrier();
  finish(first, thread);
}

//# dot_f32
fn group_dot(w: Group, x: XGroup) -> f32 {
  var sum = 0.0;
  for (var j = 0u; j < 8u; j++) {
    sum += dot(group_value(w, j), x_value(x, j));
  }
  return sum;
}

//# dot_i8_scale32
fn dot16(w: vec4<u32>, x: vec4<u32>) -> i32 {
  return dot4I8Packed(w.x, x.x) + dot4I8Packed(w.y, x.y)
    + dot4I8Packed(w.z, x.z) + dot4I8Packed(w.w, x.w);
}

fn group_dot(w: Group, x: XGroup) -> f32 {
  let product = f32(dot16(w.low, x.low) + dot16(w.high, x.high));
  return fma(w.scales.x * x.scale, product, w.scales.y * x.sum);
}

//# dot_i8_scale16
const ONES = vec4<u32>(0x01010101u);

fn dot16(w: vec4<u32>, x: vec4<u32>) -> i32 {
  return dot4I8Packed(w.x, x.x) + dot4I8Packed(w.y, x.y)
    + dot4I8Packed(w.z, x.z) + dot4I8Packed(w.w, x.w);
}

fn group_dot(w: Group, x: XGroup) -> f32 {
  let low = vec2(f32(dot16(w.low, x.low)), f32(dot16(ONES, x.low)));
  let high = vec2(f32(dot16(w.high, x.high)), f32(dot16(ONES, x.high)));
  return x.scale * (dot(w.scales.xy, low) + dot(w.scales.zw, high));
}

//# lanes_subgroup
override SUBGROUP: u32;

fn add_lanes(sum: vec2<f32>, thread: u32) -> vec2<f32> {
  return subgroupAdd(sum);
}

fn is_part(thread: u32) -> bool {
  return thread % SUBGROUP == 0u;
}

fn part_of(lane: u32) -> u32 {
  return lane / SUBGROUP;
}

//# lanes_workgroup
// LANES is a power of two here.
var<workgroup> exchange: array<vec2<f32>, THREADS>;

fn add_lanes(sum: vec2<f32>, thread: u32) -> vec2<f32> {
  exchange[thread] = sum;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if thread % LANES < half {
      exchange[thread] += exchange[thread + half];
    }
    workgroupBarrier();
  }
  return exchange[thread];
}

fn is_part(thread: u32) -> bool {
  return thread % LANES == 0u;
}

fn part_of(lane: u32) -> u32 {
  return 0u;
}

//# input_scale_one
var<private> input_scale: array<f32, TOKENS>;

fn find_input_scale(thread: u32) {
  for (var token = 0u; token < TOKENS; token++) {
    input_scale[token] = 1.0;
  }
}

//# input_scale_rms
// x is from epilogue_residual and not divided by its root mean square yet: the groups' sums of
// squares follow their scales.
override EPS: f32;

var<private> input_scale: array<f32, TOKENS>;

fn find_input_scale(thread: u32) {
  for (var token = 0u; token < TOKENS; token++) {
    var squares = 0.0;
    for (var i = thread % SUBGROUP; i < GROUPS; i += SUBGROUP) {
      squares += x_scales[(MAX_TOKENS + first_token + token) * GROUPS + i].x;
    }
    input_scale[token] = inverseSqrt(subgroupAdd(squares) / f32(32u * GROUPS) + EPS);
  }
}

//# epilogue_store
fn finish(first: u32, thread: u32) {
  for (var i = thread; i < TOKENS * PAIRS; i += THREADS) {
    let pair = i % PAIRS;
    let sum = pair_sum(i / PAIRS, pair);
    let token = first_token + i / PAIRS;
    let row = first + 2u * pair;
    if row < ROWS {
      store(token, row, sum.x);
    }
    if row + 1u < ROWS {
      store(token, row + 1u, sum.y);
    }
  }
}

//# epilogue_gated
// Rows are pairs (gate, up); activation(gate) * up is encoded in groups of 32 columns. PAIRS is a
// multiple of 32.
var<workgroup> tile: array<f32, TOKENS * PAIRS>;

$activation

$write

fn finish(first: u32, thread: u32) {
  for (var i = thread; i < TOKENS * PAIRS; i += THREADS) {
    let sum = pair_sum(i / PAIRS, i % PAIRS);
    tile[i] = activated(sum.x) * sum.y;
  }
  workgroupBarrier();
  for (var i = thread; i < TOKENS * PAIRS / 4u; i += THREADS) {
    let group = i / 8u;
    let token = group / (PAIRS / 32u);
    let column = (FIRST_ROW + first) / 64u + group % (PAIRS / 32u);
    if column < OUT_COLS / 32u {
      store_part((first_token + token) * (OUT_COLS / 32u) + column, 32u * group, i % 8u);
    }
  }
}

//# epilogue_residual
// residual += product; out = encoded residual * gamma, and its sums of squares. The consumer
// divides by the root mean square of the row (input_scale_rms). PAIRS = 16: a workgroup has one
// group of 32 columns.
@group(0) @binding(OUT + 2) var<storage, read_write> residual: array<f32>;  // [tokens, cols]
@group(0) @binding(OUT + 3) var<storage, read> gamma: array<f32>;           // [cols]

var<workgroup> tile: array<f32, TOKENS * 32u>;
var<workgroup> squares: array<f32, TOKENS * 32u>;

// out_scales: (scale, scale * sum) [tokens, groups], then (sum of squares, 0) [tokens, groups]
$write

fn finish(first: u32, thread: u32) {
  let group = (FIRST_ROW + first) / 32u;
  for (var i = thread; i < TOKENS * 32u; i += THREADS) {
    let column = 32u * group + i % 32u;
    let at = (first_token + i / 32u) * OUT_COLS + column;
    let x = residual[at] + pair_sum(i / 32u, i / 2u % 16u)[i % 2u];
    residual[at] = x;
    squares[i] = x * x;
    tile[i] = x * gamma[column];
  }
  workgroupBarrier();
  for (var i = thread; i < TOKENS * 8u; i += THREADS) {
    let token = i / 8u;
    let out = (first_token + token) * (OUT_COLS / 32u) + group;
    store_part(out, 32u * token, i % 8u);
    if i % 8u == 7u {
      var sum = 0.0;
      for (var k = 32u * token; k < 32u * token + 32u; k++) {
        sum += squares[k];
      }
      out_scales[MAX_TOKENS * (OUT_COLS / 32u) + out] = vec2(sum, 0.0);
    }
  }
}

//# epilogue_residual_subgroup32
// As epilogue_residual, for subgroups of 32 threads: each encodes a group without workgroup memory.
@group(0) @binding(OUT) var<storage, read_write> out_values: array<u32>;        // int8
// (scale, scale * sum) [tokens, groups], then (sum of squares, 0) [tokens, groups]
@group(0) @binding(OUT + 1) var<storage, read_write> out_scales: array<vec2<f32>>;
@group(0) @binding(OUT + 2) var<storage, read_write> residual: array<f32>;      // [tokens, cols]
@group(0) @binding(OUT + 3) var<storage, read> gamma: array<f32>;               // [cols]

fn finish(first: u32, thread: u32) {
  let lane = thread % 32u;
  let group = (FIRST_ROW + first) / 32u;
  let column = 32u * group + lane;
  for (var start = 0u; start < TOKENS; start += THREADS / 32u) {
    let token = min(start + thread / 32u, TOKENS - 1u);
    let mine = start + thread / 32u < TOKENS;
    let at = (first_token + token) * OUT_COLS + column;
    let x = residual[at] + pair_sum(token, lane / 2u)[lane % 2u];
    let value = x * gamma[column];
    let largest = subgroupMax(abs(value));
    let q = i32(round(value * select(0.0, 127.0 / largest, largest > 0.0)));
    let sum = subgroupAdd(q);
    let squares = subgroupAdd(x * x);
    let byte = (u32(q) & 255u) << (8u * (lane % 4u));
    let pair = byte | subgroupShuffleXor(byte, 1u);
    let word = pair | subgroupShuffleXor(pair, 2u);
    if mine {
      residual[at] = x;
      let out = (first_token + token) * (OUT_COLS / 32u) + group;
      if lane % 4u == 0u {
        out_values[out * 8u + lane / 4u] = word;
      }
      if lane == 0u {
        let scale = largest / 127.0;
        out_scales[out] = vec2(scale, scale * f32(sum));
        out_scales[MAX_TOKENS * (OUT_COLS / 32u) + out] = vec2(squares, 0.0);
      }
    }
  }
}
