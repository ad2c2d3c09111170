// Matrix products without barriers, for software adapters: one thread takes eight rows of the
// weight and up to four rows of x. A load costs more than a product there, even of memory that all
// threads load, so each loaded x is used eight times. Loops over words and over rows of x are
// unrolled, because such adapters index a vector or an array by comparing with every index.

const OUT = ${out}u;        // first binding of the output

override COUNT: u32;        // word of the step that holds the number of rows of x
override GROUPS: u32;       // of 32 columns
override ROWS: u32;         // of this shard of the weight
override FIRST_ROW: u32;    // of this shard
override OUT_COLS: u32;

@group(0) @binding(0) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> scales: array<u32>;
@group(0) @binding(${step}) var<storage, read> step: array<u32>;

$reader

$input

$epilogue

// Returns the first group of four rows; rows beyond the last are the last row.
fn first_groups(row: u32) -> vec4<u32> {
  return min(vec4(row, row + 1u, row + 2u, row + 3u), vec4(ROWS - 1u)) * GROUPS;
}

fn finish_rows(token: u32, row: u32, low: vec4<f32>, high: vec4<f32>) {
  finish(token, row, low);
  if row + 4u < ROWS {
    finish(token, row + 4u, high);
  }
}

@compute @workgroup_size(16)
fn main(
  @builtin(global_invocation_id) id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
) {
  let row = 8u * (id.y * num_workgroups.x * 16u + id.x);
  let first = id.z * ${tokens}u;
  let count = step[COUNT];
  _ = scales[0];
  if row >= ROWS || first >= count {
    return;
  }
  let low_groups = first_groups(row);
  let high_groups = first_groups(row + 4u);
$begin
  for (var group = 0u; group < GROUPS; group++) {
    let a = load_group(low_groups.x + group);
    let b = load_group(low_groups.y + group);
    let c = load_group(low_groups.z + group);
    let d = load_group(low_groups.w + group);
    let e = load_group(high_groups.x + group);
    let f = load_group(high_groups.y + group);
    let g = load_group(high_groups.z + group);
    let h = load_group(high_groups.w + group);
$products
  }
$end
}

//# begin
  let x_row${token} = min(first + ${token}u, count - 1u) * GROUPS;
  var low${token} = vec4<f32>();   // sums of rows 0-3
  var high${token} = vec4<f32>();  // and 4-7

//# end
  if first + ${token}u < count {
    finish_rows(first + ${token}u, row, low${token}, high${token});
  }

//# half
    {
      // Sums quants times x, and x, and multiplies by the scales after that.
      let low_scale = vec4(a.scales.${scale}, b.scales.${scale}, c.scales.${scale}, d.scales.${scale});
      let low_min = vec4(a.scales.${min}, b.scales.${min}, c.scales.${min}, d.scales.${min});
      let high_scale = vec4(e.scales.${scale}, f.scales.${scale}, g.scales.${scale}, h.scales.${scale});
      let high_min = vec4(e.scales.${min}, f.scales.${min}, g.scales.${min}, h.scales.${min});
$begin
$words
$end
    }

//# half_begin
      var low_part${token} = vec4<f32>();
      var high_part${token} = vec4<f32>();
      var x_part${token} = vec4<f32>();

//# half_word
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

//# half_word_token
        let x${token} = x_value(load_x(x_row${token} + group), ${word}u);
        x_part${token} += x${token};
        low_part${token} += vec4(dot(wa, x${token}), dot(wb, x${token}), dot(wc, x${token}), dot(wd, x${token}));
        high_part${token} += vec4(dot(we, x${token}), dot(wf, x${token}), dot(wg, x${token}), dot(wh, x${token}));

//# half_end
      let x_sum${token} = dot(x_part${token}, vec4(1.0));
      low${token} += low_part${token} * low_scale + x_sum${token} * low_min;
      high${token} += high_part${token} * high_scale + x_sum${token} * high_min;

//# float_word
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

//# float_word_token
      let x${token} = x_value(load_x(x_row${token} + group), ${word}u);
      low${token} += vec4(dot(wa, x${token}), dot(wb, x${token}), dot(wc, x${token}), dot(wd, x${token}));
      high${token} += vec4(dot(we, x${token}), dot(wf, x${token}), dot(wg, x${token}), dot(wh, x${token}));

//# epilogue_store
fn finish(token: u32, row: u32, sums: vec4<f32>) {
  for (var i = 0u; i < min(4u, ROWS - row); i++) {
    store(token, row + i, sums[i]);
  }
}

//# epilogue_gated
// Rows are pairs (gate, up); activations are f32 where there are no barriers.
@group(0) @binding(OUT) var<storage, read_write> y: array<f32>;

$activation

fn finish(token: u32, row: u32, sums: vec4<f32>) {
  let at = token * OUT_COLS + (FIRST_ROW + row) / 2u;
  y[at] = activated(sums.x) * sums.y;
  y[at + 1u] = activated(sums.z) * sums.w;
}
