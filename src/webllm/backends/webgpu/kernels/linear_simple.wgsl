// Matrix products without barriers, for software adapters: one thread takes eight rows of the
// weight and a run of rows of x. A load costs more there than a product, also of what all threads
// load, so that each x loaded is used eight times. Words and rows of x are written out, because
// such adapters index a vector or an array by comparing with every index.

const OUT = ${out}u;        // first binding of the output

override COUNT: u32;        // word of the step that holds the number of rows of x
override GROUPS: u32;       // of 32 columns
override ROWS: u32;         // of this shard of the weight
override FIRST_ROW: u32;    // of this shard
override OUT_COLS: u32;

@group(0) @binding(0) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> side: array<u32>;
@group(0) @binding(${step}) var<storage, read> step: array<u32>;

$reader

$input

$epilogue

// The first group of four rows; of the last row for those beyond it.
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
  _ = side[0];
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
$halves
  }
$end
}
