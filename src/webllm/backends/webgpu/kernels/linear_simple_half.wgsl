    {
      // Scales come last: the sums of quants times x, and of x, go first.
      let low_scale = vec4(a.scales.${scale}, b.scales.${scale}, c.scales.${scale}, d.scales.${scale});
      let low_min = vec4(a.scales.${min}, b.scales.${min}, c.scales.${min}, d.scales.${min});
      let high_scale = vec4(e.scales.${scale}, f.scales.${scale}, g.scales.${scale}, h.scales.${scale});
      let high_min = vec4(e.scales.${min}, f.scales.${min}, g.scales.${min}, h.scales.${min});
$begin
$words
$end
    }
