// ggml's kvalues_iq4nl.
var<private> iq4_values: array<i32, 16> = array(
  -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113
);

fn look_up(at: u32) {
  for (var i = 0u; i < 16u; i++) {
    let byte = byte_at(at + i);
    q[i] = iq4_values[byte & 15u];
    q[i + 16u] = iq4_values[byte >> 4u];
  }
}
