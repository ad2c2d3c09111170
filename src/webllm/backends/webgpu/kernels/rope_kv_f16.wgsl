// Four dimensions of a key or value as f16.
alias KV = vec2<u32>;

fn kv_unpack(unit: KV) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(unit.x), unpack2x16float(unit.y));
}

fn kv_pack(value: vec4<f32>) -> KV {
  let v = clamp(value, vec4<f32>(-65504.0), vec4<f32>(65504.0));
  return vec2<u32>(pack2x16float(v.xy), pack2x16float(v.zw));
}
