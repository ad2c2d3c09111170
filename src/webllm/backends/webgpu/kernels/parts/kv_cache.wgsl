// The KV cache's layout (see kv_cache.py), and four dimensions of a key or value: `KV`.

$element

const BLOCK_SIZE = 16u;
override NUM_KV: u32; // heads
override UNITS: u32; // head_dim / 4

fn key_at(block: u32, head: u32, unit: u32, offset: u32) -> u32 {
  return ((block * NUM_KV + head) * UNITS + unit) * BLOCK_SIZE + offset;
}

fn value_at(block: u32, head: u32, unit: u32, offset: u32) -> u32 {
  return ((block * NUM_KV + head) * BLOCK_SIZE + offset) * UNITS + unit;
}

//# f16
alias KV = vec2<u32>;

fn kv_unpack(unit: KV) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(unit.x), unpack2x16float(unit.y));
}

fn kv_pack(value: vec4<f32>) -> KV {
  let v = clamp(value, vec4<f32>(-65504.0), vec4<f32>(65504.0));
  return vec2<u32>(pack2x16float(v.xy), pack2x16float(v.zw));
}

//# f32
alias KV = vec4<f32>;

fn kv_unpack(unit: KV) -> vec4<f32> {
  return unit;
}

fn kv_pack(value: vec4<f32>) -> KV {
  return value;
}
