    {
      let wa = group_value(a, ${word}u);
      let wb = group_value(b, ${word}u);
      let wc = group_value(c, ${word}u);
      let wd = group_value(d, ${word}u);
      let we = group_value(e, ${word}u);
      let wf = group_value(f, ${word}u);
      let wg = group_value(g, ${word}u);
      let wh = group_value(h, ${word}u);
$tokens
    }
