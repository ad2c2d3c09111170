  let x_row${token} = min(first + ${token}u, count - 1u) * GROUPS;
  var low${token} = vec4<f32>();   // sums of rows 0-3
  var high${token} = vec4<f32>();  // and 4-7
