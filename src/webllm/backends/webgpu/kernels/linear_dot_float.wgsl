fn group_dot(w: Group, x: XGroup) -> f32 {
  var sum = 0.0;
  for (var j = 0u; j < 8u; j++) {
    sum += dot(group_value(w, j), x_value(x, j));
  }
  return sum;
}
