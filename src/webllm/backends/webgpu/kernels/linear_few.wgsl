// Matrix products of a few rows of x (decode): bound by reading the weight once for TOKENS of them.
//
// A team of LANES threads takes two rows of the weight at a time, each thread every LANES-th group
// of 32 columns. A workgroup has TEAMS teams, each LOOPS times: PAIRS = TEAMS * LOOPS pairs of rows.

// Lengths of arrays are no overrides: naga 29 aborts on some expressions of them.
const TOKENS = ${tokens}u;
const PAIRS = ${pairs}u;
const PARTS = ${parts}u;     // sums of a row that add_lanes leaves
const THREADS = ${threads}u;
const OUT = ${out}u;       // first binding of the output

override GROUPS: u32;      // of 32 columns
override ROWS: u32;        // of this shard of the weight
override FIRST_ROW: u32;   // of this shard
override LANES: u32;
override TEAMS: u32;
override LOOPS: u32;
override OUT_COLS: u32;
override MAX_TOKENS: u32;  // rows of x in all

@group(0) @binding(0) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> side: array<u32>;

var<private> first_token: u32;  // of this workgroup

var<workgroup> partials: array<vec2<f32>, TOKENS * PAIRS * PARTS>;  // [tokens, pairs, parts]

$reader

$input

$dot

$lanes

$norm

// Both rows of a pair.
fn pair_sum(token: u32, pair: u32) -> vec2<f32> {
  let first = (token * PAIRS + pair) * PARTS;
  var sum = partials[first];
  for (var i = 1u; i < PARTS; i++) {
    sum += partials[first + i];
  }
  return sum * input_scale[token];
}

$epilogue

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let first = (workgroup.y * num_workgroups.x + workgroup.x) * 2u * PAIRS;
  first_token = workgroup.z * TOKENS;
  let lane = thread % LANES;
  let team = thread / LANES;
  _ = side[0];
  for (var i = 0u; i < LOOPS; i++) {
    let pair = i * TEAMS + team;
    let row = min(first + 2u * pair, ROWS - 1u);
    let next = min(row + 1u, ROWS - 1u);
    var sums = array<vec2<f32>, TOKENS>();  // naga 29 clears a variable without a value once only
    for (var group = lane; group < GROUPS; group += LANES) {
      let a = load_group(row * GROUPS + group);
      let b = load_group(next * GROUPS + group);
      for (var token = 0u; token < TOKENS; token++) {
        let x = load_x((first_token + token) * GROUPS + group);
        sums[token] += vec2(group_dot(a, x), group_dot(b, x));
      }
    }
    for (var token = 0u; token < TOKENS; token++) {
      let sum = add_lanes(sums[token], thread);
      if is_part(thread) {
        partials[(token * PAIRS + pair) * PARTS + part_of(lane)] = sum;
      }
    }
  }
  find_input_scale(thread);
  workgroupBarrier();
  finish(first, thread);
}
