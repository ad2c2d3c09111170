// Sums and maxima over the threads of a workgroup, in three variants with one interface, so that a
// kernel is written once: a THREADS-wide workgroup with subgroups, one with workgroup memory alone,
// or a single thread without barriers. Every thread calls these functions in uniform control flow,
// with its index in the workgroup; every thread gets the same answer. One call may follow another
// without sync():
//
//     sync()                       all threads see what was written to `tile`
//     sum_across(value, thread)    the total
//     sum4_across(value, thread)
//     best_across(best, thread)    the largest value, with the lowest id among equals
//
// `tile` is TILE_SIZE floats for the kernel's own use, shared by the workgroup.

//# workgroup
// THREADS is a power of two.
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

//# subgroup
// The workgroup is whole subgroups of SUBGROUP threads.
override THREADS: u32 = 256;
override SUBGROUP: u32 = 32;
const TILE_SIZE = 1024u;
const MAX_SUBGROUPS = 128u; // naga fails on THREADS / SUBGROUP as an array's size

struct Best {
  value: f32,
  id: u32,
}

var<workgroup> tile: array<f32, TILE_SIZE>;
var<workgroup> exchange: array<vec4<f32>, MAX_SUBGROUPS>;
var<workgroup> exchange_best: array<Best, MAX_SUBGROUPS>;
var<workgroup> total: vec4<f32>;
var<workgroup> winner: Best;

fn sync() {
  workgroupBarrier();
}

fn sum4_across(value: vec4<f32>, thread: u32) -> vec4<f32> {
  let part = subgroupAdd(value);
  if thread % SUBGROUP == 0u {
    exchange[thread / SUBGROUP] = part;
  }
  workgroupBarrier();
  if thread == 0u {
    var sum = exchange[0];
    for (var i = 1u; i < THREADS / SUBGROUP; i++) {
      sum += exchange[i];
    }
    total = sum;
  }
  return workgroupUniformLoad(&total);
}

fn sum_across(value: f32, thread: u32) -> f32 {
  let part = subgroupAdd(value);
  if thread % SUBGROUP == 0u {
    exchange[thread / SUBGROUP].x = part;
  }
  workgroupBarrier();
  if thread == 0u {
    var sum = exchange[0].x;
    for (var i = 1u; i < THREADS / SUBGROUP; i++) {
      sum += exchange[i].x;
    }
    total.x = sum;
  }
  return workgroupUniformLoad(&total).x;
}

fn better(a: Best, b: Best) -> bool {
  return a.value > b.value || (a.value == b.value && a.id < b.id);
}

fn best_across(best: Best, thread: u32) -> Best {
  let value = subgroupMax(best.value);
  let id = subgroupMin(select(0xffffffffu, best.id, best.value == value));
  if thread % SUBGROUP == 0u {
    exchange_best[thread / SUBGROUP] = Best(value, id);
  }
  workgroupBarrier();
  if thread == 0u {
    var first = exchange_best[0];
    for (var i = 1u; i < THREADS / SUBGROUP; i++) {
      if better(exchange_best[i], first) {
        first = exchange_best[i];
      }
    }
    winner = first;
  }
  return workgroupUniformLoad(&winner);
}

//# single
// One thread: no workgroup memory, no barriers.
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
