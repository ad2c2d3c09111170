// Looks up rows of the embedding table: one thread unpacks a group of 32 columns of a token's row,
// if this shard holds that row.

override NUM_TOKENS: u32; // words of the step
override TOKEN_IDS: u32;
override FIRST_ROW: u32; // of the shard
override ROWS: u32;
override GROUPS: u32; // of a row
override SCALE: f32;

const FROM_SAMPLED = 0x80000000u;

@group(0) @binding(0) var<storage, read> step: array<u32>;
@group(0) @binding(1) var<storage, read> sampled: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>; // [tokens, cols / 4]
@group(0) @binding(3) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> scales: array<u32>;

$reader

@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let column_group = id.x;
  let token = id.y;
  _ = scales[0];  // float formats do not use it
  if token >= step[NUM_TOKENS] || column_group >= GROUPS {
    return;
  }
  var row = step[TOKEN_IDS + token];
  if (row & FROM_SAMPLED) != 0u {
    row = sampled[row & ~FROM_SAMPLED];
  }
  if row < FIRST_ROW || row - FIRST_ROW >= ROWS {
    return;
  }
  let group = load_group((row - FIRST_ROW) * GROUPS + column_group);
  for (var j = 0u; j < 8u; j++) {
    out[(token * GROUPS + column_group) * 8u + j] = SCALE * group_value(group, j);
  }
}
