// A team is a workgroup of THREADS threads made of whole subgroups of SUBGROUP threads.
// Interface: see workgroup.wgsl.

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
