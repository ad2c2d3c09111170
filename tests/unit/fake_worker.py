"""A worker in the same event loop: a handler with an engine, and a port to it."""

from __future__ import annotations

from typing import Any

from webllm import ChatOptions, MLCEngine
from webllm.workers.handler import MLCEngineHandler
from webllm.workers.port import LoopbackPort
from webllm.workers.proxy import WorkerMLCEngine

FOREVER = {"max_tokens": 10**6, "ignore_eos": True}
SHIFT = ChatOptions(context_overflow="shift")


class Worker:
    """`port` is the client's end."""

    def __init__(self) -> None:
        self.handler = MLCEngineHandler()
        self.port, theirs = LoopbackPort.pair()
        self.handler.serve(theirs)

    @property
    def engine(self) -> MLCEngine:
        assert isinstance(self.handler.engine, MLCEngine)
        return self.handler.engine


async def create_worker_here(model_id: str) -> WorkerMLCEngine:
    """Does as `create_worker_process`, without a process."""
    engine = WorkerMLCEngine(Worker().port)
    await engine.reload(model_id)
    return engine


async def read(stream: Any) -> None:
    async for _ in stream:
        pass
