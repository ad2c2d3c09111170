// Attention of one token and one head over one split of its context, by one thread: for software
// adapters, in decode and prefill.

const UNITS_CONST = $units;

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

@compute @workgroup_size(8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let head = id.x / SPLITS;
  let split = id.x % SPLITS;
  let row = id.y;
  if row >= step[NUM_TOKENS] || head >= NUM_Q {
    return;
  }
  let splits = splits_of(row);
  let begin = splits.begin + split * splits.size;
  let end = min(begin + splits.size, splits.end);
  if begin >= end {
    return;
  }
  let seq = step[SEQ_IDS + row];
  let kv_head = head / HEADS_PER_KV;
  var q: array<vec4<f32>, UNITS_CONST>;
  var out: array<vec4<f32>, UNITS_CONST>;
  for (var unit = 0u; unit < UNITS_CONST; unit++) {
    q[unit] = qkv[(row * (NUM_Q + 2u * NUM_KV) + head) * UNITS + unit] * SCALE;
  }
  var largest = -3.0e38;
  var total = 0.0;
  for (var position = begin; position < end; position++) {
    let block = step[BLOCK_TABLES + seq * MAX_BLOCKS + position / BLOCK_SIZE];
    let key = key_at(block, kv_head, 0u, position % BLOCK_SIZE);
    var sum = vec4<f32>();
    for (var unit = 0u; unit < UNITS_CONST; unit++) {
      sum += q[unit] * kv_unpack(keys[key + unit * BLOCK_SIZE]);
    }
    let score = sum.x + sum.y + sum.z + sum.w;
    let now = max(largest, score);
    let factor = exp(largest - now);
    let weight = exp(score - now);
    largest = now;
    total = total * factor + weight;
    let value = value_at(block, kv_head, 0u, position % BLOCK_SIZE);
    for (var unit = 0u; unit < UNITS_CONST; unit++) {
      out[unit] = out[unit] * factor + weight * kv_unpack(values[value + unit]);
    }
  }
  let at = (row * NUM_Q + head) * SPLITS + split;
  for (var unit = 0u; unit < UNITS_CONST; unit++) {
    part[at * UNITS + unit] = out[unit];
  }
  part_softmax[at] = vec2<f32>(largest, total);
}
