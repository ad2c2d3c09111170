// Candidates of a threshold, of one thread. Interface: see sample_candidates_team.wgsl.
const CAPACITY = 64u; // squared, far from the 65535 iterations lavapipe allows a thread

var<private> candidates: array<vec2<f32>, CAPACITY>; // logit, weight
var<private> num_candidates: u32;

fn no_candidates(thread: u32) {
  num_candidates = 0u;
}

fn add_candidate(logit: f32, weight: f32) {
  if num_candidates < CAPACITY {
    candidates[num_candidates] = vec2<f32>(logit, weight);
  }
  num_candidates++;
}

fn count_candidates(thread: u32) -> u32 {
  return num_candidates;
}
