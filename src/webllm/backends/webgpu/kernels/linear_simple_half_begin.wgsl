      var low_part${token} = vec4<f32>();
      var high_part${token} = vec4<f32>();
      var x_part${token} = vec4<f32>();
