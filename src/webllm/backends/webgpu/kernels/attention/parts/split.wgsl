// How the context of a token is shared out: SPLITS shares of equal size, the last ones empty.

override NUM_TOKENS: u32; // words of the step
override POSITIONS: u32;
override NUM_Q: u32; // heads
override SPLITS: u32;
override TILE: u32; // a share is a multiple of this many positions
override WINDOW: u32; // positions a token sees; 0: all

@group(0) @binding(0) var<storage, read> step: array<u32>;

struct Share {
  begin: u32,
  end: u32,
  size: u32,
}

fn share_of(row: u32) -> Share {
  let end = step[POSITIONS + row] + 1u;
  let begin = select(0u, end - min(end, WINDOW), WINDOW > 0u);
  let size = (end - begin + SPLITS - 1u) / SPLITS;
  return Share(begin, end, (size + TILE - 1u) / TILE * TILE);
}

fn num_shares(share: Share) -> u32 {
  return (share.end - share.begin + share.size - 1u) / share.size;
}
