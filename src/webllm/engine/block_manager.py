"""Manages the KV cache's blocks and the prefix cache.

Knows block ids and token ids, not memory. A full block is found by its prefix: its own tokens, all
those before them, and which of them prefill computed, because decoding may round differently. A
block without references keeps its content until it is evicted. Prefixes are compared token by
token, so that no hash collision can mix up two prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NO_PREFIX = 0  # the prefix id before a sequence's first block


_Key = tuple[int, int, tuple[int, ...]]  # prefix id, prefilled tokens, token ids


@dataclass(frozen=True, slots=True)
class _Entry:
    """A full block in the prefix cache."""

    block: int
    prefix_id: int  # of the prefix that ends with this block; ids are never reused


class BlockManager:
    """`num_blocks` blocks of `block_size` positions each."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._ref_counts = [0] * num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))  # without content
        self._evictable: dict[int, None] = {}  # with content but without references; LRU first
        self._entries: dict[_Key, _Entry] = {}
        self._keys: dict[int, _Key] = {}  # by block
        self._num_prefixes = 0

    @property
    def num_free(self) -> int:
        """Blocks that can be allocated: free and evictable ones."""
        return len(self._free) + len(self._evictable)

    def blocks_for(self, num_positions: int) -> int:
        return -(-num_positions // self.block_size)

    def allocate(self, count: int) -> list[int] | None:
        """Returns blocks with one reference each, or None if there are not enough."""
        if count > self.num_free:
            return None
        blocks = [self._free.pop() if self._free else self._evict() for _ in range(count)]
        for block in blocks:
            self._ref_counts[block] = 1
        return blocks

    def free(self, blocks: Sequence[int]) -> None:
        """Drops one reference of each, in reverse, so that a prefix's tail is evicted first."""
        for block in reversed(blocks):
            assert self._ref_counts[block] > 0, f"block {block} was freed twice"
            self._ref_counts[block] -= 1
            if self._ref_counts[block] == 0:
                if block in self._keys:
                    self._evictable[block] = None
                else:
                    self._free.append(block)

    def insert(
        self, block: int, prefix_id: int, token_ids: Sequence[int], num_prefilled: int
    ) -> int:
        """Adds a full block behind a prefix; returns the id of the prefix that ends with it.

        num_prefilled: its first tokens, which prefill computed; decoding computed the others.
        """
        key = prefix_id, num_prefilled, tuple(token_ids)
        entry = self._entries.get(key)
        if entry is None:
            self._num_prefixes += 1
            entry = _Entry(block, self._num_prefixes)
            self._entries[key] = entry
            self._keys[block] = key
        return entry.prefix_id

    def match(
        self, prefix_id: int, token_ids: Sequence[int], num_prefilled: int
    ) -> tuple[int, int] | None:
        """Finds the block with these tokens behind a prefix, and adds a reference to it.

        Returns the block and the id of the prefix that ends with it.
        """
        entry = self._entries.get((prefix_id, num_prefilled, tuple(token_ids)))
        if entry is None:
            return None
        self._evictable.pop(entry.block, None)
        self._ref_counts[entry.block] += 1
        return entry.block, entry.prefix_id

    def reset_prefix_cache(self) -> None:
        """Forgets the content of every block; those in use stay allocated."""
        self._free.extend(self._evictable)
        self._evictable.clear()
        self._entries.clear()
        self._keys.clear()

    def _evict(self) -> int:
        block = next(iter(self._evictable))
        del self._evictable[block]
        del self._entries[self._keys.pop(block)]
        return block
