$planes

@group(0) @binding(5) var<storage, read> scale_plane: array<u32>;

// MLC's writers do not emit the code 15, which is one more than the target's four bits hold: then
// the scale is negative, and so are the codes.
const NEGATES = $negates;

fn negate() {
  for (var i = 0u; i < 32u; i++) {
    q[i] = 2 * SOURCE_ZERO - q[i];
  }
  scale = both(-scale[0]);
}

fn unpack(at: u32, group: u32) {
  let i = at / BLOCK_BYTES;
  scale = both(number(scale_plane[i / 2u], i));
  unpack_codes(at + 16u * group);
  var largest = 0;
  for (var e = 0u; e < 32u; e++) {
    largest = max(largest, q[e]);
  }
  if NEGATES && largest == 15 {
    negate();
  }
}
