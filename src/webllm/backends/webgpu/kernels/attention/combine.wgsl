// Puts the shares of each head together, divides by the softmax sum and encodes, COLS columns
// a workgroup.

const OUT = 3;
const AHEAD = $ahead; // loads in flight

override COLS: u32; // columns of a workgroup
override UNITS: u32; // head_dim / 4

$reduction

$split

@group(0) @binding(1) var<storage, read_write> part: array<f32>; // [tokens, q, splits, head_dim]
@group(0) @binding(2) var<storage, read_write> part_softmax: array<vec2<f32>>; // max, sum

$write

// One column of head `head` of the row: `at` is its first share.
fn combined(at: u32, shares: u32, dim: u32) -> f32 {
  var largest = -3.0e38;
  for (var i = 0u; i < shares; i += AHEAD) {
    for (var j = 0u; j < AHEAD; j++) {
      largest = max(largest, part_softmax[at + min(i + j, shares - 1u)].x);
    }
  }
  var total = 0.0;
  var sum = 0.0;
  for (var i = 0u; i < shares; i += AHEAD) {
    for (var j = 0u; j < AHEAD; j++) {
      let share = at + min(i + j, shares - 1u);
      let softmax = part_softmax[share];
      let weight = select(0.0, exp(softmax.x - largest), i + j < shares);
      total += weight * softmax.y;
      sum += weight * part[share * 4u * UNITS + dim];
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
  let shares = num_shares(share_of(row));
  let head_dim = 4u * UNITS;
  let first = workgroup.x * COLS;
  let count = min(COLS, NUM_Q * head_dim - first);
  for (var i = thread; i < count; i += THREADS) {
    let head = (first + i) / head_dim;
    tile[i] = combined((row * NUM_Q + head) * SPLITS, shares, (first + i) % head_dim);
  }
  sync();
  for (var i = thread; i < count / 4u; i += THREADS) {
    let group = i / 8u;
    store_part((row * NUM_Q * head_dim + first) / 32u + group, 32u * group, i % 8u);
  }
}
