"""A model's files in memory, and a description of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass

from webllm.artifacts.checkpoint import Checkpoint
from webllm.artifacts.formats import open_checkpoint
from webllm.errors import ModelNotFoundError

# A tokenizer of three tokens.
TOKENIZER = {
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
    "added_tokens": [{"id": 2, "content": "<|im_end|>", "special": True}],
    "pre_tokenizer": {"type": "ByteLevel"},
}


@dataclass
class MemoryFiles:
    """`Files` with these contents."""

    contents: Mapping[str, bytes]

    def size(self, name: str) -> int:
        if name not in self.contents:
            raise ModelNotFoundError(f"there is no {name}")
        return len(self.contents[name])

    async def load(self, name: str, start: int, end: int) -> bytes:
        assert 0 <= start <= end <= self.size(name)
        return self.contents[name][start:end]

    async def gather(self, name: str, ranges: list[tuple[int, int]]) -> list[bytes]:
        return [await self.load(name, start, end) for start, end in ranges]

    async def read(self, name: str, start: int, end: int) -> memoryview:
        return memoryview(await self.load(name, start, end))

    def close(self) -> None:
        """Does nothing."""


def opened(entry: str, contents: Mapping[str, bytes | object]) -> Checkpoint:
    """Opens a model of these files; what is not bytes is written as JSON."""
    files = MemoryFiles(
        {
            name: value if isinstance(value, bytes) else json.dumps(value).encode()
            for name, value in contents.items()
        }
    )
    return asyncio.run(open_checkpoint(entry, list(contents), files))
