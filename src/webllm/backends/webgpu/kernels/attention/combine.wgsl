// Combines the splits of each head, divides by the softmax sum and encodes. A workgroup has COLS
// columns of one token.

const OUT = 3;
const AHEAD = $ahead; // loads in flight

override COLS: u32; // columns of a workgroup
override UNITS: u32; // head_dim / 4

$reduction

$split

@group(0) @binding(1) var<storage, read_write> part: array<f32>; // [tokens, q, splits, head_dim]
@group(0) @binding(2) var<storage, read_write> part_softmax: array<vec2<f32>>; // max, sum

$write

// Returns one column of a head; `at` is the head's first split.
fn combined(at: u32, splits: u32, dim: u32) -> f32 {
  var largest = -3.0e38;
  for (var i = 0u; i < splits; i += AHEAD) {
    for (var j = 0u; j < AHEAD; j++) {
      largest = max(largest, part_softmax[at + min(i + j, splits - 1u)].x);
    }
  }
  var total = 0.0;
  var sum = 0.0;
  for (var i = 0u; i < splits; i += AHEAD) {
    for (var j = 0u; j < AHEAD; j++) {
      let split = at + min(i + j, splits - 1u);
      let softmax = part_softmax[split];
      let weight = select(0.0, exp(softmax.x - largest), i + j < splits);
      total += weight * softmax.y;
      sum += weight * part[split * 4u * UNITS + dim];
    }
  }
  return sum / total;
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = workgroup.y;
  if row >= step[NUM_TOKENS] {
    return;
  }
  let splits = num_splits(splits_of(row));
  let head_dim = 4u * UNITS;
  let first = workgroup.x * COLS;
  let count = min(COLS, NUM_Q * head_dim - first);
  for (var i = thread; i < count; i += THREADS) {
    let head = (first + i) / head_dim;
    tile[i] = combined((row * NUM_Q + head) * SPLITS, splits, (first + i) % head_dim);
  }
  sync();
  for (var i = thread; i < count / 4u; i += THREADS) {
    let group = i / 8u;
    store_part((row * NUM_Q * head_dim + first) / 32u + group, 32u * group, i % 8u);
  }
}
