// LANES is a power of two here.
var<workgroup> exchange: array<vec2<f32>, THREADS>;

fn add_lanes(sum: vec2<f32>, thread: u32) -> vec2<f32> {
  exchange[thread] = sum;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if thread % LANES < half {
      exchange[thread] += exchange[thread + half];
    }
    workgroupBarrier();
  }
  return exchange[thread];
}

fn is_part(thread: u32) -> bool {
  return thread % LANES == 0u;
}

fn part_of(lane: u32) -> u32 {
  return 0u;
}
