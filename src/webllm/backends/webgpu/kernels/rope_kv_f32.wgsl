// Four dimensions of a key or value as f32.
alias KV = vec4<f32>;

fn kv_unpack(unit: KV) -> vec4<f32> {
  return unit;
}

fn kv_pack(value: vec4<f32>) -> KV {
  return value;
}
