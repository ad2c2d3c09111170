"""Kills the shared engine while two clients stream from it, and compares what they receive."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from webllm import MLCEngineConfig
from webllm.api.stats import ModelStats
from webllm.artifacts.progress import InitProgressReport
from webllm.workers.daemon_client import create_service_worker_mlc_engine, daemon_status
from webllm.workers.daemon_files import DaemonFiles
from webllm.workers.proxy import WorkerMLCEngine

MAX_TOKENS = 96
_TEXT = "The sea is deep and the sky is high, and the ships sail far away. " * 24
_PENALTIES = {"frequency_penalty": 0.5, "presence_penalty": 0.3, "repetition_penalty": 1.1}
REQUESTS: list[dict[str, Any]] = [
    {"prompt": _TEXT, "temperature": 0, "logprobs": True, "top_logprobs": 2},
    {"prompt": "Once upon a time", "seed": 7, "n": 2},
    {"prompt": "one two three " * 9, "seed": 8, "temperature": 0.8, **_PENALTIES},
    {"prompt": "Rivers", "seed": 9, "logit_bias": {28: 3.0, 260: -100}},
]


@dataclass
class Received:
    """What a client received of one answer, by choice."""

    texts: dict[int, str] = field(default_factory=dict)
    token_ids: dict[int, list[int]] = field(default_factory=dict)
    logprobs: dict[int, list[Any]] = field(default_factory=dict)
    reasons: dict[int, str | None] = field(default_factory=dict)

    def take(self, choice: Any) -> None:
        index = choice.index
        assert self.reasons.get(index) is None, "a choice went on after its end"
        self.texts[index] = self.texts.get(index, "") + choice.text
        self.token_ids.setdefault(index, []).extend(choice.token_ids or ())
        if choice.logprobs is not None:
            self.logprobs.setdefault(index, []).extend(choice.logprobs.content)
        self.reasons[index] = choice.finish_reason


class Clients:
    """Two clients of the shared engine; each streams all requests at once.

    on_chunk: is called with the number of chunks that have come since the last kill.
    """

    def __init__(self) -> None:
        self.on_progress: Callable[[], None] = _nothing
        self.on_begun: Callable[[], None] = _nothing
        self.on_chunk: Callable[[int], None] = _nothing
        self.gaps_s: list[float] = []  # from each kill to the next chunk of any stream
        self._killed: float | None = None
        self._num_chunks = 0
        self._engines: list[WorkerMLCEngine] = []
        self._stack = AsyncExitStack()

    async def open(self, model: str) -> None:
        def report(_: InitProgressReport) -> None:
            self.on_progress()

        config = MLCEngineConfig(device="cpu", init_progress_callback=report)
        for _ in range(2):
            engine = await create_service_worker_mlc_engine(model, config)
            self._engines.append(await self._stack.enter_async_context(engine))

    async def close(self) -> None:
        await self._stack.aclose()

    def kill(self) -> bool:
        """Kills the process of the shared engine; returns whether there was one."""
        pid = DaemonFiles.find().read_pid()
        if pid is None:
            return False
        os.kill(pid, signal.SIGKILL)
        self._killed = time.monotonic()
        self._num_chunks = 0
        return True

    async def answers(self) -> list[Received]:
        """Streams all requests from both clients."""
        streams: list[Awaitable[Received]] = [
            self._stream(engine, request) for engine in self._engines for request in REQUESTS
        ]
        return await asyncio.gather(*streams)

    async def _stream(self, engine: WorkerMLCEngine, request: dict[str, Any]) -> Received:
        extra = {"return_token_ids": True}
        stream: Any = await engine.completion(
            {
                **request,
                "max_tokens": MAX_TOKENS,
                "ignore_eos": True,
                "stream": True,
                "extra_body": extra,
            }
        )
        self.on_begun()
        received = Received()
        async for chunk in stream:
            if self._killed is not None:
                self.gaps_s.append(time.monotonic() - self._killed)
                self._killed = None
            for choice in chunk.choices:
                received.take(choice)
            self._num_chunks += 1
            self.on_chunk(self._num_chunks)
        return received


def _nothing(*_: object) -> None: ...


async def free_blocks() -> list[int]:
    """Returns the free blocks of each model in the shared engine."""
    return [model.free_blocks for model in await _models()]


async def all_blocks() -> list[int]:
    return [model.blocks for model in await _models()]


async def num_under_way() -> int:
    """Returns the sequences that run or wait in the shared engine."""
    return sum(model.running + model.waiting for model in await _models())


async def _models() -> list[ModelStats]:
    status = await daemon_status()
    assert status is not None
    return status.engine.models
