"""What an engine is doing now: its models, their sequences and their KV cache."""

from __future__ import annotations

import msgspec

from webllm.api.base import ResponseStruct


class ModelStats(ResponseStruct):
    """One loaded model. A request of n choices is n sequences."""

    model_id: str
    device: str  # a readable name
    running: int  # sequences
    waiting: int  # sequences
    free_blocks: int  # of the KV cache, with those that keep a prefix nobody uses
    blocks: int
    block_tokens: int  # tokens in a block
    memory_bytes: int | None = None  # of weights and KV cache; None: an engine of before


class EngineStats(ResponseStruct):
    """Ours; WebLLM has nothing like it."""

    models: list[ModelStats]  # empty while models are being loaded
    loading: list[str] = msgspec.field(default_factory=list)  # ids or sources, meanwhile
