// Rows come in pairs (gate, up); activations are f32 where there are no barriers.
alias Sum = vec2<f32>;

struct Pair {
  gate: Group,
  up: Group,
}

@group(0) @binding(OUT) var<storage, read_write> y: array<f32>;

fn items() -> u32 {
  return ROWS / 2u;
}

fn load_rows(item: u32, group: u32) -> Pair {
  return Pair(load_group(2u * item * GROUPS + group), load_group((2u * item + 1u) * GROUPS + group));
}

fn product(w: Pair, x: XGroup) -> vec2<f32> {
  return vec2(group_dot(w.gate, x), group_dot(w.up, x));
}

$activation

fn finish(token: u32, item: u32, sum: vec2<f32>) {
  y[token * OUT_COLS + FIRST_ROW / 2u + item] = activated(sum.x) * sum.y;
}
