      let x${token} = x_value(load_x(x_row${token} + group), ${word}u);
      low${token} += vec4(dot(wa, x${token}), dot(wb, x${token}), dot(wc, x${token}), dot(wd, x${token}));
      high${token} += vec4(dot(we, x${token}), dot(wf, x${token}), dot(wg, x${token}), dot(wh, x${token}));
