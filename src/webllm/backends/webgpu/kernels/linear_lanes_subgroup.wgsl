override SUBGROUP: u32;

fn add_lanes(sum: vec2<f32>, thread: u32) -> vec2<f32> {
  return subgroupAdd(sum);
}

fn is_part(thread: u32) -> bool {
  return thread % SUBGROUP == 0u;
}

fn part_of(lane: u32) -> u32 {
  return lane / SUBGROUP;
}
