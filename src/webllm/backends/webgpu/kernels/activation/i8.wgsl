// Activations as int8: groups of 32 columns that share a scale d (see target.ActivationFormat).
//
// The three files of this folder have one interface. Including kernels declare, before them:
//     const OUT = 3;                      the first of the bindings below
//     var<workgroup> tile: array<f32, N>  or var<private>: where the values to store are read from
// and call, for a group whose 32 values are tile[at .. at + 32]:
//     store_part(group, at, part)         eight threads, part = 0 .. 7; thread `part` stores four
//                                         columns. No barrier inside, any control flow.
//     store_group(group, at)              one thread stores the whole group.
// `group` counts groups of 32 over the whole matrix: row * cols / 32 + column / 32.
// Bindings: OUT, and OUT + 1 for i8 only.

@group(0) @binding(OUT) var<storage, read_write> out_values: array<u32>;
@group(0) @binding(OUT + 1) var<storage, read_write> out_scales: array<vec2<f32>>;

// Each group starts its walk at another bank of workgroup memory.
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

fn store_group(group: u32, at: u32) {
  let largest = group_max(group, at);
  let inverse = inverse_of(largest);
  var sum = vec4<i32>();
  for (var i = 0u; i < 8u; i++) {
    let q = quantized(at + 4u * i, inverse);
    out_values[group * 8u + i] = packed(q);
    sum += q;
  }
  let d = largest / 127.0;
  out_scales[group] = vec2<f32>(d, d * f32(sum.x + sum.y + sum.z + sum.w));
}
