
// The KV cache's layout: see rope_kv.py.
const BLOCK_SIZE = 16u;
override NUM_KV: u32; // heads
override UNITS: u32; // head_dim / 4

fn key_at(block: u32, head: u32, unit: u32, offset: u32) -> u32 {
  return ((block * NUM_KV + head) * UNITS + unit) * BLOCK_SIZE + offset;
}

fn value_at(block: u32, head: u32, unit: u32, offset: u32) -> u32 {
  return ((block * NUM_KV + head) * BLOCK_SIZE + offset) * UNITS + unit;
}
