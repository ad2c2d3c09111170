// Converts blocks of a storage type to the layout of matrix.py, one thread for each group of 32
// columns.
//
// The part for the type defines
//     unpack(byte, group)   sets q, scale, low_value from the block that starts at `byte`:
//                           value = scale[half] * (q - SOURCE_ZERO) + low_value[half]
//                           (blocks of floats keep what store_group or value(e) needs, and
//                           quantize(), where there is one, sets the same from value(e))
// A type of several planes has its first in `blocks`, and binds the others from 5 on.
// The part for our format defines store_group(i).

struct Params {
  rows: u32,         // in this chunk
  groups: u32,       // in a row
  source_row: u32,   // of the chunk's first row within its part
  head_dim: u32,     // 0: rows as stored; else the halves of each head are interleaved
  target_row: u32,   // row of the part's first row, before the stride
  stride: u32,       // 2 where the rows of two weights alternate
  shard_row: u32,    // this dispatch may write rows shard_row .. shard_row + shard_rows
  shard_rows: u32,
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> blocks: array<u32>;
@group(0) @binding(2) var<storage, read_write> quants: array<u32>;
@group(0) @binding(3) var<storage, read_write> scales: array<atomic<u32>>;

const BLOCK_BYTES = ${block_bytes}u;  // in the first plane
const BLOCK_GROUPS = ${block_groups}u;
const SOURCE_ZERO = ${source_zero};

var<private> q: array<i32, 32>;
var<private> scale: array<f32, 2>;
var<private> low_value: array<f32, 2>;

fn byte_at(i: u32) -> u32 {
  return (blocks[i >> 2u] >> (8u * (i & 3u))) & 255u;
}

fn word_at(i: u32) -> u32 {
  return byte_at(i) | (byte_at(i + 1u) << 8u) | (byte_at(i + 2u) << 16u) | (byte_at(i + 3u) << 24u);
}

fn half_at(i: u32) -> f32 {
  return unpack2x16float(byte_at(i) | (byte_at(i + 1u) << 8u)).x;
}

fn both(value: f32) -> array<f32, 2> {
  return array(value, value);
}

$block

$store

fn row_of(row: u32) -> u32 {
  var ordered = row;
  if params.head_dim > 0u {
    let half = params.head_dim / 2u;
    let i = row % params.head_dim;
    ordered = row - i + select(2u * i, 2u * (i - half) + 1u, i >= half);
  }
  return params.target_row + ordered * params.stride;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  _ = atomicLoad(&scales[0]);  // float formats do not use it
  if id.x >= params.rows * params.groups {
    return;
  }
  let row = id.x / params.groups;
  let group = id.x % params.groups;
  let out_row = row_of(params.source_row + row) - params.shard_row;
  if out_row >= params.shard_rows {  // rows below shard_row too: they wrap around
    return;
  }
  let block = row * (params.groups / BLOCK_GROUPS) + group / BLOCK_GROUPS;
  unpack(block * BLOCK_BYTES, group % BLOCK_GROUPS);
  $quantize
  store_group(out_row * params.groups + group);
}

//# value
fn value(e: u32) -> f32 {
  return scale[e / 16u] * f32(q[e] - SOURCE_ZERO) + low_value[e / 16u];
}

//# store_float32
fn store_group(i: u32) {
  for (var e = 0u; e < 32u; e++) {
    quants[32u * i + e] = bitcast<u32>(value(e));
  }
}

//# store_quantized
const BITS = ${bits}u;
const HIGH_WORDS = ${high_words}u;
const SCALE_WORDS = ${scale_words}u;
const MINS = ${mins};
const TARGET_ZERO = ${zero};

fn nibbles(j: u32) -> u32 {  // word j of 4-bit quants
  var word = 0u;
  for (var b = 0u; b < 4u; b++) {
    word |= (u32(q[4u * j + b]) & 15u) << (8u * b);
    word |= (u32(q[16u + 4u * j + b]) & 15u) << (8u * b + 4u);
  }
  return word;
}

fn bytes(j: u32) -> u32 {
  var word = 0u;
  for (var b = 0u; b < 4u; b++) {
    word |= (u32(q[4u * j + b]) & 255u) << (8u * b);
  }
  return word;
}

fn store_quants(i: u32) {
  if BITS == 8u {
    for (var j = 0u; j < 8u; j++) {
      quants[8u * i + j] = bytes(j);
    }
    return;
  }
  for (var j = 0u; j < 4u; j++) {
    quants[4u * i + j] = nibbles(j);
  }
}

fn store_high(i: u32) {
  var words: array<u32, 2>;
  for (var e = 0u; e < 32u; e++) {
    let high = u32(q[e]) >> 4u;
    let byte = 8u * (e & 3u);
    if BITS == 5u {
      words[0] |= (high & 1u) << (byte + e / 4u);
    } else {
      words[e / 16u] |= (high & 3u) << (byte + 2u * ((e / 4u) & 3u));
    }
  }
  for (var j = 0u; j < HIGH_WORDS; j++) {
    atomicStore(&scales[i * SCALE_WORDS + j], words[j]);
  }
}

fn store_scales(i: u32) {
  if SCALE_WORDS == 0u {  // two groups share a word, which two dispatches may write
    atomicOr(&scales[i >> 1u], pack2x16float(vec2(scale[0], 0.0)) << (16u * (i & 1u)));
    return;
  }
  let at = i * SCALE_WORDS + HIGH_WORDS;
  if !MINS {
    atomicStore(&scales[at], pack2x16float(vec2(scale[0], scale[1])));
    return;
  }
  for (var j = 0u; j < SCALE_WORDS - HIGH_WORDS; j++) {
    atomicStore(&scales[at + j], pack2x16float(vec2(scale[j], low_value[j])));
  }
}

fn store_group(i: u32) {
  for (var e = 0u; e < 32u; e++) {
    q[e] += select(TARGET_ZERO - SOURCE_ZERO, 0, MINS);
  }
  if MINS {
    low_value[0] -= f32(SOURCE_ZERO) * scale[0];
    low_value[1] -= f32(SOURCE_ZERO) * scale[1];
  }
  store_quants(i);
  store_high(i);
  store_scales(i);
}
