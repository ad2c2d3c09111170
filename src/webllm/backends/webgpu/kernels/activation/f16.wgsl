// Activations as f16, two in a u32. Interface and names: see i8.wgsl.

@group(0) @binding(OUT) var<storage, read_write> out_values: array<u32>;

fn packed(at: u32) -> u32 {
  return pack2x16float(clamp(vec2<f32>(tile[at], tile[at + 1u]), vec2(-65504.0), vec2(65504.0)));
}

fn store_part(group: u32, at: u32, part: u32) {
  out_values[group * 16u + 2u * part] = packed(at + 4u * part);
  out_values[group * 16u + 2u * part + 1u] = packed(at + 4u * part + 2u);
}

fn store_group(group: u32, at: u32) {
  for (var part = 0u; part < 8u; part++) {
    store_part(group, at, part);
  }
}
