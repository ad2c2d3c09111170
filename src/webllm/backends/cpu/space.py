"""Lays out one block of memory, piece by piece, before it exists."""

from __future__ import annotations

from dataclasses import dataclass

ALIGNMENT = 64


@dataclass(slots=True)
class Space:
    """Hands out offsets, each a multiple of `ALIGNMENT`, one after the other."""

    num_bytes: int = 0

    def take(self, num_bytes: int) -> int:
        offset = self.num_bytes
        self.num_bytes += -(-num_bytes // ALIGNMENT) * ALIGNMENT
        return offset
