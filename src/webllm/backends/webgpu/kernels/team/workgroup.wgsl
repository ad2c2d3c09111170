// A team is a workgroup of THREADS threads (a power of two). Every thread calls these functions,
// in uniform control flow, with its index in the team; every thread gets the same answer.
//
//     sync()                       what the team wrote to `tile` can be read by all
//     sum_across(value, thread)    the team's total
//     sum4_across(value, thread)
//     best_across(best, thread)    the largest value, the lowest id among equals
//
// `tile` is TILE_SIZE floats that the team shares; the kernel's own.

override THREADS: u32 = 256;
const TILE_SIZE = 1024u;

struct Best {
  value: f32,
  id: u32,
}

var<workgroup> tile: array<f32, TILE_SIZE>;
var<workgroup> exchange: array<vec4<f32>, THREADS>;
var<workgroup> exchange_best: array<Best, THREADS>;

fn sync() {
  workgroupBarrier();
}

fn sum4_across(value: vec4<f32>, thread: u32) -> vec4<f32> {
  exchange[thread] = value;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if thread < half {
      exchange[thread] += exchange[thread + half];
    }
  }
  return workgroupUniformLoad(&exchange[0]);
}

fn sum_across(value: f32, thread: u32) -> f32 {
  return sum4_across(vec4<f32>(value, 0.0, 0.0, 0.0), thread).x;
}

fn better(a: Best, b: Best) -> bool {
  return a.value > b.value || (a.value == b.value && a.id < b.id);
}

fn best_across(best: Best, thread: u32) -> Best {
  exchange_best[thread] = best;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if thread < half && better(exchange_best[thread + half], exchange_best[thread]) {
      exchange_best[thread] = exchange_best[thread + half];
    }
  }
  return workgroupUniformLoad(&exchange_best[0]);
}
