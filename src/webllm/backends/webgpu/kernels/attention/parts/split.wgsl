// How a token's context is split: SPLITS parts of equal size, the last ones shorter or empty.

override NUM_TOKENS: u32; // words of the step
override POSITIONS: u32;
override NUM_Q: u32; // heads
override SPLITS: u32;
override TILE: u32; // a split is a multiple of this many positions
override WINDOW: u32; // positions a token sees; 0: all

@group(0) @binding(0) var<storage, read> step: array<u32>;

struct Splits {
  begin: u32,
  end: u32,
  size: u32,
}

fn splits_of(row: u32) -> Splits {
  let end = step[POSITIONS + row] + 1u;
  let begin = select(0u, end - min(end, WINDOW), WINDOW > 0u);
  let size = (end - begin + SPLITS - 1u) / SPLITS;
  return Splits(begin, end, (size + TILE - 1u) / TILE * TILE);
}

fn num_splits(splits: Splits) -> u32 {
  return (splits.end - splits.begin + splits.size - 1u) / splits.size;
}
