alias Sum = f32;

fn items() -> u32 {
  return ROWS;
}

fn load_rows(item: u32, group: u32) -> Group {
  return load_group(item * GROUPS + group);
}

fn product(w: Group, x: XGroup) -> f32 {
  return group_dot(w, x);
}

fn finish(token: u32, item: u32, sum: f32) {
  store(token, item, sum);
}
