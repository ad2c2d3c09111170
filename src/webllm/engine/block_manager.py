"""Hands out the KV cache's blocks and finds those again whose content is still good.

Pure bookkeeping: knows ids and tokens, not memory. A full block is known by its prefix: its own
tokens and all before them. It keeps its content after its last user has gone, until the block is
needed; prefixes are compared token by token, so that no hash can mistake one for another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NO_PREFIX = 0  # the prefix of a sequence's first block


@dataclass(frozen=True, slots=True)
class _Content:
    block: int
    prefix: int  # number of the prefix that ends with this block, never used twice


class BlockManager:
    """`num_blocks` blocks of `block_size` positions each."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._num_users = [0] * num_blocks
        self._blank = list(range(num_blocks - 1, -1, -1))  # free, with no content worth keeping
        self._kept: dict[int, None] = {}  # free, with content; the next one to give up first
        self._contents: dict[tuple[int, tuple[int, ...]], _Content] = {}
        self._keys: dict[int, tuple[int, tuple[int, ...]]] = {}  # of blocks with content
        self._num_prefixes = 0

    @property
    def num_free(self) -> int:
        """Blocks without a user; some still hold content."""
        return len(self._blank) + len(self._kept)

    def blocks_for(self, num_positions: int) -> int:
        return -(-num_positions // self.block_size)

    def allocate(self, count: int) -> list[int] | None:
        """Blocks of one user, or None if there are not enough free ones."""
        if count > self.num_free:
            return None
        taken = [self._blank.pop() if self._blank else self._give_up() for _ in range(count)]
        for block in taken:
            self._num_users[block] = 1
        return taken

    def free(self, blocks: Sequence[int]) -> None:
        """One user leaves. A sequence's last blocks are given up before its first."""
        for block in reversed(blocks):
            assert self._num_users[block] > 0, f"block {block} was freed twice"
            self._num_users[block] -= 1
            if self._num_users[block] == 0:
                if block in self._keys:
                    self._kept[block] = None
                else:
                    self._blank.append(block)

    def remember(self, block: int, prefix: int, token_ids: Sequence[int]) -> int:
        """Notes what fills a block; returns the number of the prefix that ends with it."""
        key = prefix, tuple(token_ids)
        content = self._contents.get(key)
        if content is None:
            self._num_prefixes += 1
            content = _Content(block, self._num_prefixes)
            self._contents[key] = content
            self._keys[block] = key
        return content.prefix

    def share(self, prefix: int, token_ids: Sequence[int]) -> tuple[int, int] | None:
        """A block that holds these tokens behind that prefix, with a user more, and the number of
        the prefix that ends with it.
        """
        content = self._contents.get((prefix, tuple(token_ids)))
        if content is None:
            return None
        self._kept.pop(content.block, None)
        self._num_users[content.block] += 1
        return content.block, content.prefix

    def forget(self) -> None:
        """No content is found any more; blocks in use stay their users'."""
        self._blank.extend(self._kept)
        self._kept.clear()
        self._contents.clear()
        self._keys.clear()

    def _give_up(self) -> int:
        block = next(iter(self._kept))
        del self._kept[block]
        del self._contents[self._keys.pop(block)]
        return block
