$iq4_values

fn unpack(at: u32, group: u32) {
  scale = both(half_at(at));
  look_up(at + 2u);
}
