// Activations that only matrix products read, in groups of 32 columns: int8 with one scale a group,
// or f32 (see activation.py). Group i counts over the whole matrix: row * cols / 32 + column / 32.
//
// A kernel that reads them includes read_*: load_x(i) loads group i, and x_value(x, j) is its
// elements 4j .. 4j + 3.
//
// A kernel that writes them includes write_*, and declares before it:
//     const OUT = 3;                      the first binding of the output; i8 uses OUT + 1 as well
//     var<workgroup> tile: array<f32, N>  or var<private>: the values to store
// and calls, for group i, whose 32 values are tile[at .. at + 32]:
//     store_part(i, at, part)             eight threads, part = 0 .. 7: thread `part` stores four
//                                         columns. No barrier inside, any control flow.

//# read_i8
@group(0) @binding(2) var<storage, read> x_values: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> x_scales: array<vec2<f32>>;

struct XGroup {
  low: vec4<u32>,   // elements 0-15, int8
  high: vec4<u32>,  // elements 16-31
  scale: f32,
  sum: f32,         // scale * sum of the group's int8
}

fn load_x(i: u32) -> XGroup {
  let scale = x_scales[i];
  return XGroup(x_values[2u * i], x_values[2u * i + 1u], scale.x, scale.y);
}

fn x_value(x: XGroup, j: u32) -> vec4<f32> {
  if j < 4u {
    return vec4<f32>(unpack4xI8(x.low[j])) * x.scale;
  }
  return vec4<f32>(unpack4xI8(x.high[j - 4u])) * x.scale;
}

//# read_f32
@group(0) @binding(2) var<storage, read> x_values: array<vec4<f32>>;

struct XGroup {
  first: u32,  // index of the group's first four elements
}

fn load_x(i: u32) -> XGroup {
  return XGroup(8u * i);
}

fn x_value(x: XGroup, j: u32) -> vec4<f32> {
  return x_values[x.first + j];
}

//# write_i8
@group(0) @binding(OUT) var<storage, read_write> out_values: array<u32>;
@group(0) @binding(OUT + 1) var<storage, read_write> out_scales: array<vec2<f32>>;

// Groups start at different banks of workgroup memory, to avoid bank conflicts.
fn group_max(group: u32, at: u32) -> f32 {
  var largest = 0.0;
  for (var i = 0u; i < 32u; i++) {
    largest = max(largest, abs(tile[at + ((i + group) & 31u)]));
  }
  return largest;
}

fn quantized(at: u32, inverse: f32) -> vec4<i32> {
  return vec4<i32>(
    round(vec4<f32>(tile[at], tile[at + 1u], tile[at + 2u], tile[at + 3u]) * inverse)
  );
}

fn packed(q: vec4<i32>) -> u32 {
  let bytes = vec4<u32>(q) & vec4<u32>(255u);
  return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}

fn inverse_of(largest: f32) -> f32 {
  return select(0.0, 127.0 / largest, largest > 0.0);
}

fn store_part(group: u32, at: u32, part: u32) {
  let largest = group_max(group, at);
  let inverse = inverse_of(largest);
  out_values[group * 8u + part] = packed(quantized(at + 4u * part, inverse));
  if part == 0u {
    var sum = vec4<i32>();
    for (var i = 0u; i < 8u; i++) {
      sum += quantized(at + 4u * i, inverse);
    }
    let d = largest / 127.0;
    out_scales[group] = vec2<f32>(d, d * f32(sum.x + sum.y + sum.z + sum.w));
  }
}

//# write_f32
@group(0) @binding(OUT) var<storage, read_write> out_values: array<f32>;

fn store_part(group: u32, at: u32, part: u32) {
  for (var i = 4u * part; i < 4u * part + 4u; i++) {
    out_values[group * 32u + i] = tile[at + i];
  }
}
