// Codes of four bits, the first in the lowest bits, and numbers in planes of their own. f16 must be
// able to hold them: `out_of_range` tells of those that it cannot.
@group(0) @binding(4) var<storage, read_write> out_of_range: atomic<u32>;

const IS_BF16 = $bf16;

fn number(word: u32, i: u32) -> f32 {  // the i-th of a plane, in its i / 2-th word
  let half = (word >> (16u * (i & 1u))) & 0xffffu;
  if (half & 0x7fffu) > select(0x7bffu, 0x477fu, IS_BF16) {
    atomicStore(&out_of_range, 1u);
  }
  if IS_BF16 {
    return bitcast<f32>(half << 16u);
  }
  return unpack2x16float(half).x;
}

fn unpack_codes(at: u32) {
  for (var i = 0u; i < 32u; i++) {
    q[i] = i32((blocks[at / 4u + i / 8u] >> (4u * (i % 8u))) & 15u);
  }
}
