      {
        let wa = vec4<f32>(unpack4xI8(a.${half}.${component}));
        let wb = vec4<f32>(unpack4xI8(b.${half}.${component}));
        let wc = vec4<f32>(unpack4xI8(c.${half}.${component}));
        let wd = vec4<f32>(unpack4xI8(d.${half}.${component}));
        let we = vec4<f32>(unpack4xI8(e.${half}.${component}));
        let wf = vec4<f32>(unpack4xI8(f.${half}.${component}));
        let wg = vec4<f32>(unpack4xI8(g.${half}.${component}));
        let wh = vec4<f32>(unpack4xI8(h.${half}.${component}));
$tokens
      }
