// Two-byte floats, copied as they are.
const BLOCK_BYTES = 64u;
const BLOCK_GROUPS = 1u;

var<private> source: u32;

fn unpack(at: u32, group: u32) {
  source = at / 4u;
}

fn store_group(i: u32) {
  for (var j = 0u; j < 16u; j++) {
    quants[16u * i + j] = blocks[source + j];
  }
}
