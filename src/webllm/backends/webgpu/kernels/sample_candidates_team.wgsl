// Candidates of a threshold, in workgroup memory.
const CAPACITY = 512u;

var<workgroup> candidates: array<vec2<f32>, CAPACITY>; // logit, weight
var<workgroup> num_candidates: atomic<u32>;
var<workgroup> counted: u32;

fn no_candidates(thread: u32) {
  if thread == 0u {
    atomicStore(&num_candidates, 0u);
  }
  workgroupBarrier();
}

fn add_candidate(logit: f32, weight: f32) {
  let at = atomicAdd(&num_candidates, 1u);
  if at < CAPACITY {
    candidates[at] = vec2<f32>(logit, weight);
  }
}

// How many were added; more than CAPACITY are not kept.
fn count_candidates(thread: u32) -> u32 {
  workgroupBarrier();
  if thread == 0u {
    counted = atomicLoad(&num_candidates);
  }
  return workgroupUniformLoad(&counted);
}
