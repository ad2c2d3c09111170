// Attention of a tile of queries: 64 rows, each one query and one of HEADS q heads that share a
// KV head, against 32 positions at a time (online softmax, arXiv:1805.02867; tiles after
// arXiv:2205.14135).
//
// The 256 threads are 16 x 16. Thread (tx, ty) has rows 4 ty .. 4 ty + 3, and of those the scores
// of positions tx and tx + 16 and the output units tx, tx + 16, ... A vec4 has a value of each row.

const HEADS = $heads;
const UNITS_PER_THREAD = $units_per_thread;
const ROWS = 64u;
const QUERIES = ROWS / HEADS;
const POSITIONS_PER_TILE = 32u;
const CHUNK = 4u; // units of q and k staged at a time
const STAGE = 512u;
const LOWEST = -3.0e38;

override HEADS_PER_KV: u32;
override NUM_SEQS: u32; // words of the step
override QUERY_STARTS: u32;
override BLOCK_TABLES: u32;
override MAX_BLOCKS: u32;
override VALUES_STAGED: u32; // positions of values staged at a time: VALUES_STAGED * UNITS <= STAGE
override SCALE: f32;

$split

$kv_cache

@group(0) @binding(1) var<storage, read_write> qkv: array<vec4<f32>>; // [tokens, heads, units]
@group(0) @binding(2) var<storage, read> keys: array<KV>;
@group(0) @binding(3) var<storage, read> values: array<KV>;
@group(0) @binding(4) var<storage, read_write> part: array<vec4<f32>>; // [tokens, q, units]
@group(0) @binding(5) var<storage, read_write> part_softmax: array<vec2<f32>>; // max, sum

var<workgroup> stage: array<vec4<f32>, STAGE>;
var<workgroup> weights: array<vec4<f32>, ROWS / 4u * POSITIONS_PER_TILE>; // [ty, position]

struct Queries {
  seq: u32,
  first: u32, // token row
  count: u32,
}

// Returns the index-th tile of queries of the batch; its count is 0 if there are fewer.
fn queries_of(index: u32) -> Queries {
  var before = 0u;
  var start = step[QUERY_STARTS];
  for (var seq = 0u; seq < step[NUM_SEQS]; seq++) {
    let end = step[QUERY_STARTS + seq + 1u];
    let tiles = (end - start + QUERIES - 1u) / QUERIES;
    if index < before + tiles {
      let first = start + (index - before) * QUERIES;
      return Queries(seq, first, min(QUERIES, end - first));
    }
    before += tiles;
    start = end;
  }
  return Queries(0u, 0u, 0u);
}

fn block_of(seq: u32, position: u32) -> u32 {
  return step[BLOCK_TABLES + seq * MAX_BLOCKS + position / BLOCK_SIZE];
}

// Returns the scores of the thread's four rows at positions start + tx and start + tx + 16.
fn scores(tile: Queries, first_head: u32, start: u32, last: u32, thread: u32) -> array<vec4<f32>, 2> {
  let tx = thread % 16u;
  let ty = thread / 16u;
  let row = min(thread % ROWS, tile.count * HEADS - 1u);
  let q_heads = (tile.first + row / HEADS) * (NUM_Q + 2u * NUM_KV) + first_head + row % HEADS;
  let q_at = q_heads * UNITS + thread / ROWS;
  let position = min(start + thread % POSITIONS_PER_TILE, last);
  let k_unit = thread / POSITIONS_PER_TILE;
  let k_at = key_at(
    block_of(tile.seq, position), first_head / HEADS_PER_KV, k_unit, position % BLOCK_SIZE
  );
  var result: array<vec4<f32>, 2>;
  for (var unit = 0u; unit < UNITS; unit += CHUNK) {
    workgroupBarrier();
    stage[thread] = qkv[q_at + unit] * SCALE; // [unit, row]
    if k_unit < CHUNK {
      stage[CHUNK * ROWS + thread] = kv_unpack(keys[k_at + unit * BLOCK_SIZE]); // [unit, position]
    }
    workgroupBarrier();
    for (var u = 0u; u < CHUNK; u++) {
      let k0 = stage[CHUNK * ROWS + u * POSITIONS_PER_TILE + tx];
      let k1 = stage[CHUNK * ROWS + u * POSITIONS_PER_TILE + tx + 16u];
      let q0 = stage[u * ROWS + 4u * ty];
      let q1 = stage[u * ROWS + 4u * ty + 1u];
      let q2 = stage[u * ROWS + 4u * ty + 2u];
      let q3 = stage[u * ROWS + 4u * ty + 3u];
      result[0] += vec4<f32>(dot(q0, k0), dot(q1, k0), dot(q2, k0), dot(q3, k0));
      result[1] += vec4<f32>(dot(q0, k1), dot(q1, k1), dot(q2, k1), dot(q3, k1));
    }
  }
  return result;
}

fn masked(score: vec4<f32>, position: u32, seen: vec4<u32>) -> vec4<f32> {
  var visible = vec4<u32>(position) <= seen;
  if WINDOW > 0u {
    visible = visible & (vec4<u32>(position + WINDOW) > seen);
  }
  return select(vec4<f32>(LOWEST), score, visible);
}

fn weight(score: vec4<f32>, largest: vec4<f32>) -> vec4<f32> {
  return select(exp(score - largest), vec4<f32>(), score <= vec4<f32>(LOWEST));
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let tile = queries_of(workgroup.x);
  if tile.count == 0u {
    return;
  }
  let first_head = workgroup.y * HEADS;
  let kv_head = first_head / HEADS_PER_KV;
  let tx = thread % 16u;
  let ty = thread / 16u;
  let rows = vec4<u32>(4u * ty) + vec4<u32>(0u, 1u, 2u, 3u);
  let first_position = step[POSITIONS + tile.first];
  let last = first_position + tile.count - 1u;
  let seen = vec4<u32>(first_position) + rows / HEADS; // last position each row sees
  var begin = 0u;
  if WINDOW > 0u {
    begin = first_position - min(first_position, WINDOW - 1u);
  }

  var out: array<mat4x4<f32>, UNITS_PER_THREAD>; // column r: row r
  var largest = vec4<f32>(LOWEST);
  var total = vec4<f32>();
  for (var start = begin; start <= last; start += POSITIONS_PER_TILE) {
    let s = scores(tile, first_head, start, last, thread);
    let s0 = masked(s[0], start + tx, seen);
    let s1 = masked(s[1], start + tx + 16u, seen);
    weights[ty * POSITIONS_PER_TILE + tx] = s0;
    weights[ty * POSITIONS_PER_TILE + tx + 16u] = s1;
    workgroupBarrier();
    var now = largest;
    for (var i = 0u; i < POSITIONS_PER_TILE; i++) {
      now = max(now, weights[ty * POSITIONS_PER_TILE + i]);
    }
    let factor = exp(largest - now);
    largest = now;
    total *= factor;
    for (var j = 0u; j < UNITS_PER_THREAD; j++) {
      out[j] = mat4x4<f32>(
        out[j][0] * factor.x, out[j][1] * factor.y, out[j][2] * factor.z, out[j][3] * factor.w
      );
    }
    workgroupBarrier();
    weights[ty * POSITIONS_PER_TILE + tx] = weight(s0, now);
    weights[ty * POSITIONS_PER_TILE + tx + 16u] = weight(s1, now);
    for (var first = 0u; first < POSITIONS_PER_TILE; first += VALUES_STAGED) {
      workgroupBarrier();
      for (var i = thread; i < VALUES_STAGED * UNITS; i += 256u) {
        let position = min(start + first + i / UNITS, last);
        let block = block_of(tile.seq, position);
        stage[i] = kv_unpack(values[value_at(block, kv_head, i % UNITS, position % BLOCK_SIZE)]);
      }
      workgroupBarrier();
      for (var i = 0u; i < VALUES_STAGED; i++) {
        let w = weights[ty * POSITIONS_PER_TILE + first + i];
        total += w;
        for (var j = 0u; j < UNITS_PER_THREAD; j++) {
          let v = stage[i * UNITS + min(tx + 16u * j, UNITS - 1u)];
          out[j] += mat4x4<f32>(w.x * v, w.y * v, w.z * v, w.w * v);
        }
      }
    }
  }

  for (var r = 0u; r < 4u; r++) {
    let row = 4u * ty + r;
    if row < tile.count * HEADS {
      let at = (tile.first + row / HEADS) * NUM_Q + first_head + row % HEADS;
      for (var j = 0u; j < UNITS_PER_THREAD; j++) {
        if tx + 16u * j < UNITS {
          part[at * UNITS + tx + 16u * j] = out[j][r];
        }
      }
      if tx == 0u {
        part_softmax[at] = vec2<f32>(largest[r], total[r]);
      }
    }
  }
}
