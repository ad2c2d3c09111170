// Attention of one token over one share of its context, for HEADS q heads that share a KV head.
//
// Threads take (head, position) pairs to score a tile of keys, then a unit of every `lanes`-th
// position to sum the values. What is left is not yet divided by the softmax sum; the maximum and
// the sum go along, for attention_decode_combine.wgsl.

const HEADS = $heads; // q heads of this workgroup
const PAIRS = $pairs; // (head, position) pairs a thread scores
const THREADS = 128u;
const LOWEST = -3.0e38;

override HEADS_PER_KV: u32;
override SEQ_IDS: u32; // words of the step
override BLOCK_TABLES: u32;
override MAX_BLOCKS: u32;
override SCALE: f32;

$share

$kv

@group(0) @binding(1) var<storage, read_write> qkv: array<vec4<f32>>; // [tokens, heads, units]
@group(0) @binding(2) var<storage, read> keys: array<KV>;
@group(0) @binding(3) var<storage, read> values: array<KV>;
@group(0) @binding(4) var<storage, read_write> part: array<vec4<f32>>; // [tokens, q, splits, units]
@group(0) @binding(5) var<storage, read_write> part_softmax: array<vec2<f32>>; // max, sum

var<workgroup> q: array<vec4<f32>, HEADS * UNITS>;
var<workgroup> scores: array<f32, HEADS * TILE>;
var<workgroup> weights: array<f32, HEADS * TILE>;
var<workgroup> rescale: array<f32, HEADS>;
var<workgroup> sums: array<vec4<f32>, THREADS>;

fn block_of(seq: u32, position: u32) -> u32 {
  return step[BLOCK_TABLES + seq * MAX_BLOCKS + position / BLOCK_SIZE];
}

fn score(seq: u32, kv_head: u32, head: u32, position: u32) -> f32 {
  let at = key_at(block_of(seq, position), kv_head, 0u, position % BLOCK_SIZE);
  var sum = vec4<f32>();
  for (var unit = 0u; unit < UNITS; unit++) {
    sum += q[head * UNITS + unit] * kv_unpack(keys[at + unit * BLOCK_SIZE]);
  }
  return sum.x + sum.y + sum.z + sum.w;
}

fn tile_max(head: u32) -> f32 {
  var largest = LOWEST;
  for (var i = 0u; i < TILE; i++) {
    largest = max(largest, scores[head * TILE + i]);
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
  let share = share_of(row);
  let begin = share.begin + split * share.size;
  let end = min(begin + share.size, share.end);
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

  let lanes = THREADS / UNITS; // threads that share a unit
  let unit = thread % UNITS;
  let lane = thread / UNITS;
  var out: array<vec4<f32>, HEADS>;
  var largest: array<f32, PAIRS>; // of the head of each pair
  var total: array<f32, PAIRS>; // of the weights of each pair
  for (var i = 0u; i < PAIRS; i++) {
    largest[i] = LOWEST;
  }
  for (var start = begin; start < end; start += TILE) {
    for (var i = 0u; i < PAIRS; i++) {
      let pair = i * THREADS + thread;
      let position = start + pair % TILE;
      if pair < HEADS * TILE {
        var s = LOWEST;
        if position < end {
          s = score(seq, kv_head, pair / TILE, position);
        }
        scores[pair] = s;
      }
    }
    workgroupBarrier();
    for (var i = 0u; i < PAIRS; i++) {
      let pair = i * THREADS + thread;
      if pair < HEADS * TILE {
        let now = max(largest[i], tile_max(pair / TILE));
        let factor = exp(largest[i] - now);
        let weight = exp(scores[pair] - now);
        largest[i] = now;
        total[i] = total[i] * factor + weight;
        weights[pair] = weight;
        if pair % TILE == 0u {
          rescale[pair / TILE] = factor;
        }
      }
    }
    workgroupBarrier();
    for (var h = 0u; h < HEADS; h++) {
      out[h] *= rescale[h];
    }
    if lane < lanes {
      for (var i = lane; i < min(TILE, end - start); i += lanes) {
        let position = start + i;
        let at = value_at(block_of(seq, position), kv_head, unit, position % BLOCK_SIZE);
        let v = kv_unpack(values[at]);
        for (var h = 0u; h < HEADS; h++) {
          out[h] += weights[h * TILE + i] * v;
        }
      }
    }
  }

  let part_at = (row * NUM_Q + first_head) * SPLITS + split; // + head * SPLITS
  for (var i = 0u; i < PAIRS; i++) {
    let pair = i * THREADS + thread;
    if pair < HEADS * TILE {
      scores[pair] = total[i];
      if pair % TILE == 0u {
        rescale[pair / TILE] = largest[i];
      }
    }
  }
  for (var h = 0u; h < HEADS; h++) {
    sums[thread] = out[h];
    workgroupBarrier();
    if thread < UNITS {
      var sum = sums[thread];
      for (var i = 1u; i < lanes; i++) {
        sum += sums[i * UNITS + thread];
      }
      part[(part_at + h * SPLITS) * UNITS + thread] = sum;
    }
    workgroupBarrier();
  }
  if thread < HEADS {
    var sum = 0.0;
    for (var i = 0u; i < TILE; i++) {
      sum += scores[thread * TILE + i];
    }
    part_softmax[part_at + thread * SPLITS] = vec2<f32>(rescale[thread], sum);
  }
}
