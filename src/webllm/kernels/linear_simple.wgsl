// Matrix products without barriers, for software adapters: one thread a row of the weight (a pair
// of rows where they are gated) and a run of rows of x.

const TOKENS = ${tokens}u;  // of a thread
const OUT = ${out}u;        // first binding of the output

override COUNT: u32;        // word of the step that holds the number of rows of x
override GROUPS: u32;
override ROWS: u32;
override FIRST_ROW: u32;
override OUT_COLS: u32;

@group(0) @binding(0) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> side: array<u32>;
@group(0) @binding(${step}) var<storage, read> step: array<u32>;

$reader

$input

$dot

$epilogue

@compute @workgroup_size(16)
fn main(
  @builtin(global_invocation_id) id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
) {
  let item = id.y * num_workgroups.x * 16u + id.x;
  let first = id.z * TOKENS;
  let count = step[COUNT];
  _ = side[0];
  if item >= items() || first >= count {
    return;
  }
  var sums: array<Sum, TOKENS>;
  for (var group = 0u; group < GROUPS; group++) {
    let w = load_rows(item, group);
    for (var token = 0u; token < TOKENS; token++) {
      let x = load_x(min(first + token, count - 1u) * GROUPS + group);
      sums[token] += product(w, x);
    }
  }
  for (var token = 0u; token < min(TOKENS, count - first); token++) {
    finish(first + token, item, sums[token]);
  }
}
