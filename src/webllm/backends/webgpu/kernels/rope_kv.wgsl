// Rotates q and k, and writes k and v to the KV cache: one workgroup for each head of each token. A
// thread only touches its own units, so that q can be rotated in place.

override NUM_TOKENS: u32; // words of the step
override POSITIONS: u32;
override SLOTS: u32;
override NUM_Q: u32;
override ROTARY_UNITS: u32;
override NORM_Q: u32; // 1: q has a norm
override NORM_K: u32;
override EPS: f32;
const FINE = 256u; // rows of the fine table

$reduction

$kv_cache

@group(0) @binding(0) var<storage, read> step: array<u32>;
@group(0) @binding(1) var<storage, read_write> qkv: array<vec4<f32>>; // [tokens, heads, units]
@group(0) @binding(2) var<storage, read> fine: array<vec4<f32>>; // [256, rotary units]
@group(0) @binding(3) var<storage, read> coarse: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> keys: array<KV>;
@group(0) @binding(5) var<storage, read_write> values: array<KV>;
@group(0) @binding(6) var<storage, read> q_gamma: array<vec4<f32>>; // [units]
@group(0) @binding(7) var<storage, read> k_gamma: array<vec4<f32>>;

fn product(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
  return vec2<f32>(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

fn rotated(v: vec4<f32>, unit: u32, position: u32) -> vec4<f32> {
  if unit >= ROTARY_UNITS {
    return v;
  }
  let f = fine[position % FINE * ROTARY_UNITS + unit];
  let c = coarse[position / FINE * ROTARY_UNITS + unit];
  return vec4<f32>(product(v.xy, product(f.xy, c.xy)), product(v.zw, product(f.zw, c.zw)));
}

fn inverse_rms(first: u32, thread: u32) -> f32 {
  var squares = 0.0;
  for (var unit = thread; unit < UNITS; unit += THREADS) {
    squares += dot(qkv[first + unit], qkv[first + unit]);
  }
  return inverseSqrt(sum_across(squares, thread) / f32(4u * UNITS) + EPS);
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let head = workgroup.x; // q heads, then k heads, then v heads
  let row = workgroup.y;
  if row >= step[NUM_TOKENS] {
    return;
  }
  let first = (row * (NUM_Q + 2u * NUM_KV) + head) * UNITS;
  let is_q = head < NUM_Q;
  let is_k = !is_q && head < NUM_Q + NUM_KV;
  let norm = (is_q && NORM_Q == 1u) || (is_k && NORM_K == 1u);
  var scale = 1.0;
  if norm {
    scale = inverse_rms(first, thread);
  }
  let slot = step[SLOTS + row];
  for (var unit = thread; unit < UNITS; unit += THREADS) {
    var v = qkv[first + unit];
    if norm {
      v *= scale * select(k_gamma[unit], q_gamma[unit], is_q);
    }
    if is_q {
      qkv[first + unit] = rotated(v, unit, step[POSITIONS + row]);
    } else if is_k {
      let at = key_at(slot / BLOCK_SIZE, head - NUM_Q, unit, slot % BLOCK_SIZE);
      keys[at] = kv_pack(rotated(v, unit, step[POSITIONS + row]));
    } else {
      let at = value_at(slot / BLOCK_SIZE, head - NUM_Q - NUM_KV, unit, slot % BLOCK_SIZE);
      values[at] = kv_pack(v);
    }
  }
}
