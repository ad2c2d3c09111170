// Activations as f32. Interface and names: see i8.wgsl.

@group(0) @binding(OUT) var<storage, read_write> out_values: array<f32>;

fn store_part(group: u32, at: u32, part: u32) {
  for (var i = 4u * part; i < 4u * part + 4u; i++) {
    out_values[group * 32u + i] = tile[at + i];
  }
}

fn store_group(group: u32, at: u32) {
  for (var part = 0u; part < 8u; part++) {
    store_part(group, at, part);
  }
}
