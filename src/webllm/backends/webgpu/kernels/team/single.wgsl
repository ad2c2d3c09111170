// A team is one thread: no workgroup memory, no barriers. Interface: see workgroup.wgsl.

override THREADS: u32 = 1;
const TILE_SIZE = 32u;

struct Best {
  value: f32,
  id: u32,
}

var<private> tile: array<f32, TILE_SIZE>;

fn sync() {}

fn sum4_across(value: vec4<f32>, thread: u32) -> vec4<f32> {
  return value;
}

fn sum_across(value: f32, thread: u32) -> f32 {
  return value;
}

fn better(a: Best, b: Best) -> bool {
  return a.value > b.value || (a.value == b.value && a.id < b.id);
}

fn best_across(best: Best, thread: u32) -> Best {
  return best;
}
