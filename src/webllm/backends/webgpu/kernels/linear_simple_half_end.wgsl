      let x_sum${token} = dot(x_part${token}, vec4(1.0));
      low${token} += low_part${token} * low_scale + x_sum${token} * low_min;
      high${token} += high_part${token} * high_scale + x_sum${token} * high_min;
