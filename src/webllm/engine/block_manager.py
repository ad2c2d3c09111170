"""Hands out the KV cache's blocks. Pure bookkeeping: knows ids, not memory."""

from __future__ import annotations


class BlockManager:
    """`num_blocks` blocks of `block_size` positions each."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._free = list(range(num_blocks - 1, -1, -1))

    @property
    def num_free(self) -> int:
        return len(self._free)

    def blocks_for(self, num_positions: int) -> int:
        return -(-num_positions // self.block_size)

    def allocate(self, num_positions: int) -> list[int] | None:
        """Blocks for `num_positions`, or None if there are not enough free ones."""
        count = self.blocks_for(num_positions)
        if count > len(self._free):
            return None
        taken = self._free[len(self._free) - count :]
        del self._free[len(self._free) - count :]
        return taken[::-1]

    def free(self, blocks: list[int]) -> None:
        self._free.extend(reversed(blocks))
        assert len(self._free) <= self.num_blocks, "a block was freed twice"
