$planes

@group(0) @binding(5) var<storage, read> scale_plane: array<u32>;
@group(0) @binding(6) var<storage, read> minimum_plane: array<u32>;

fn unpack(at: u32, group: u32) {
  let i = at / BLOCK_BYTES;
  scale = both(number(scale_plane[i / 2u], i));
  low_value = both(number(minimum_plane[i / 2u], i));
  unpack_codes(at + 16u * group);
}
