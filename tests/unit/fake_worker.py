"""A worker in the same event loop: a handler with an engine, and a port to it."""

from __future__ import annotations

from typing import Any

from fake_model import NumberModels

from webllm import ChatOptions, MLCEngine
from webllm.engine.loading import ModelLoader
from webllm.workers.handler import MLCEngineHandler
from webllm.workers.port import LoopbackPort

FOREVER: dict[str, Any] = {"max_tokens": 10**6, "ignore_eos": True}
SHIFT = ChatOptions(context_overflow="shift")


class Worker:
    """`port` is the client's end."""

    def __init__(self, load_model: ModelLoader | None = None) -> None:
        engine = MLCEngine(load_model=load_model or NumberModels().load)
        self.handler = MLCEngineHandler(engine, grace_s=0)
        self.port, theirs = LoopbackPort.pair()
        self.handler.serve(theirs)

    async def end(self) -> None:
        """Lets go of everything, as the end of its process does."""
        await self.handler.close()
        await self.engine.unload()

    @property
    def engine(self) -> MLCEngine:
        assert isinstance(self.handler.engine, MLCEngine)
        return self.handler.engine


async def read(stream: Any) -> None:
    async for _ in stream:
        pass
