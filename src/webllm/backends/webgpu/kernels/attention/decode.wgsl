// Attention of one token over one split of its context, for HEADS q heads that share a KV head.
//
// Each thread scores (head, position) pairs of a tile of keys, and then sums one unit of every
// LANES-th position's values. The result is not divided by the softmax sum yet: combine.wgsl does
// that, with the maximum and the sum that each split stores beside it.

const HEADS = $heads; // q heads of this workgroup
const HEAD_UNITS = $units;
const POSITIONS_AT_ONCE = $tile; // positions scored at a time: TILE as a constant
const THREADS = 128u;
const PAIRS = (HEADS * POSITIONS_AT_ONCE + THREADS - 1u) / THREADS; // scored by a thread
const LANES = THREADS / HEAD_UNITS; // threads that share a unit of the values
const VALUES = (POSITIONS_AT_ONCE + LANES - 1u) / LANES; // positions summed by a thread
const REDUCED = min(HEADS, 4u); // heads reduced at a time
const LOWEST = -3.0e38;

override HEADS_PER_KV: u32;
override SEQ_IDS: u32; // words of the step
override BLOCK_TABLES: u32;
override MAX_BLOCKS: u32;
override SCALE: f32;

$split

$kv_cache

@group(0) @binding(1) var<storage, read_write> qkv: array<vec4<f32>>; // [tokens, heads, units]
@group(0) @binding(2) var<storage, read> keys: array<KV>;
@group(0) @binding(3) var<storage, read> values: array<KV>;
@group(0) @binding(4) var<storage, read_write> part: array<vec4<f32>>; // [tokens, q, splits, units]
@group(0) @binding(5) var<storage, read_write> part_softmax: array<vec2<f32>>; // max, sum

var<workgroup> q: array<vec4<f32>, HEADS * HEAD_UNITS>;
var<workgroup> scores: array<f32, HEADS * POSITIONS_AT_ONCE>;
var<workgroup> weights: array<f32, HEADS * POSITIONS_AT_ONCE>;
var<workgroup> rescale: array<f32, HEADS>;
var<workgroup> sums: array<vec4<f32>, REDUCED * THREADS>;

fn block_of(seq: u32, position: u32) -> u32 {
  return step[BLOCK_TABLES + seq * MAX_BLOCKS + position / BLOCK_SIZE];
}

fn score(seq: u32, kv_head: u32, head: u32, position: u32) -> f32 {
  let at = key_at(block_of(seq, position), kv_head, 0u, position % BLOCK_SIZE);
  var sum = vec4<f32>();
  for (var unit = 0u; unit < HEAD_UNITS; unit++) {
    sum += q[head * HEAD_UNITS + unit] * kv_unpack(keys[at + unit * BLOCK_SIZE]);
  }
  return sum.x + sum.y + sum.z + sum.w;
}

fn tile_max(head: u32) -> f32 {
  var largest = LOWEST;
  for (var i = 0u; i < POSITIONS_AT_ONCE; i++) {
    largest = max(largest, scores[head * POSITIONS_AT_ONCE + i]);
  }
  return largest;
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let split = workgroup.x;
  let first_head = workgroup.y * HEADS;
  let row = workgroup.z;
  if row >= step[NUM_TOKENS] {
    return;
  }
  let splits = splits_of(row);
  let begin = splits.begin + split * splits.size;
  let end = min(begin + splits.size, splits.end);
  if begin >= end {
    return;
  }
  let seq = step[SEQ_IDS + row];
  let kv_head = first_head / HEADS_PER_KV;
  let q_at = (row * (NUM_Q + 2u * NUM_KV) + first_head) * UNITS;
  for (var i = thread; i < HEADS * UNITS; i += THREADS) {
    q[i] = qkv[q_at + i] * SCALE;
  }
  workgroupBarrier();

  let unit = thread % HEAD_UNITS;
  let lane = thread / HEAD_UNITS;
  var out: array<vec4<f32>, HEADS>;
  var largest: array<f32, PAIRS>; // of the head of each pair
  var total: array<f32, PAIRS>; // of the weights of each pair
  for (var i = 0u; i < PAIRS; i++) {
    largest[i] = LOWEST;
  }
  for (var start = begin; start < end; start += POSITIONS_AT_ONCE) {
    var v: array<KV, VALUES>; // loaded while the keys are scored
    for (var i = 0u; i < VALUES; i++) {
      let position = min(start + lane + i * LANES, end - 1u);
      v[i] = values[value_at(block_of(seq, position), kv_head, unit, position % BLOCK_SIZE)];
    }
    for (var i = 0u; i < PAIRS; i++) {
      let pair = i * THREADS + thread;
      let position = start + pair % POSITIONS_AT_ONCE;
      if pair < HEADS * POSITIONS_AT_ONCE {
        var s = LOWEST;
        if position < end {
          s = score(seq, kv_head, pair / POSITIONS_AT_ONCE, position);
        }
        scores[pair] = s;
      }
    }
    workgroupBarrier();
    for (var i = 0u; i < PAIRS; i++) {
      let pair = i * THREADS + thread;
      if pair < HEADS * POSITIONS_AT_ONCE {
        let now = max(largest[i], tile_max(pair / POSITIONS_AT_ONCE));
        let factor = exp(largest[i] - now);
        let weight = exp(scores[pair] - now);
        largest[i] = now;
        total[i] = total[i] * factor + weight;
        weights[pair] = weight;
        if pair % POSITIONS_AT_ONCE == 0u {
          rescale[pair / POSITIONS_AT_ONCE] = factor;
        }
      }
    }
    workgroupBarrier();
    for (var h = 0u; h < HEADS; h++) {
      out[h] *= rescale[h];
    }
    for (var i = 0u; i < VALUES; i++) {
      let at = lane + i * LANES;
      if at < POSITIONS_AT_ONCE {
        let value = kv_unpack(v[i]);
        for (var h = 0u; h < HEADS; h++) {
          out[h] += weights[h * POSITIONS_AT_ONCE + at] * value;
        }
      }
    }
  }

  let part_at = (row * NUM_Q + first_head) * SPLITS + split; // + head * SPLITS
  for (var i = 0u; i < PAIRS; i++) {
    let pair = i * THREADS + thread;
    if pair < HEADS * POSITIONS_AT_ONCE {
      scores[pair] = total[i];
      if pair % POSITIONS_AT_ONCE == 0u {
        rescale[pair / POSITIONS_AT_ONCE] = largest[i];
      }
    }
  }
  for (var first = 0u; first < HEADS; first += REDUCED) {
    workgroupBarrier();
    for (var h = 0u; h < REDUCED; h++) {
      if first + h < HEADS {
        sums[h * THREADS + thread] = out[first + h];
      }
    }
    workgroupBarrier();
    for (var i = thread; i < min(REDUCED, HEADS - first) * HEAD_UNITS; i += THREADS) {
      let h = i / HEAD_UNITS;
      var sum = vec4<f32>();
      for (var j = 0u; j < LANES; j++) {
        sum += sums[h * THREADS + j * HEAD_UNITS + i % HEAD_UNITS];
      }
      part[(part_at + (first + h) * SPLITS) * HEAD_UNITS + i % HEAD_UNITS] = sum;
    }
  }
  if thread < HEADS {
    var sum = 0.0;
    for (var i = 0u; i < POSITIONS_AT_ONCE; i++) {
      sum += scores[thread * POSITIONS_AT_ONCE + i];
    }
    part_softmax[part_at + thread * SPLITS] = vec2<f32>(rescale[thread], sum);
  }
}
