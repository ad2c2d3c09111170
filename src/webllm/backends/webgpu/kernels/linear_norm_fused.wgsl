// x came from linear_finish_residual.wgsl, not yet divided by its root mean square: behind the
// groups' scales lie their sums of squares.
override EPS: f32;

var<private> input_scale: array<f32, TOKENS>;

fn find_input_scale(thread: u32) {
  for (var token = 0u; token < TOKENS; token++) {
    var squares = 0.0;
    for (var i = thread % SUBGROUP; i < GROUPS; i += SUBGROUP) {
      squares += x_scales[(MAX_TOKENS + first_token + token) * GROUPS + i].x;
    }
    input_scale[token] = inverseSqrt(subgroupAdd(squares) / f32(32u * GROUPS) + EPS);
  }
}
