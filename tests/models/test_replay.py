"""On the CPU an answer that is cut anywhere and replayed goes on as it would have."""

from __future__ import annotations

from pathlib import Path

from golden import replay
from webllm import ChatOptions, MLCEngine, MLCEngineConfig


async def test_replays_go_on_as_undisturbed(smollm2: Path) -> None:
    async with MLCEngine(MLCEngineConfig(device="cpu")) as engine:
        await engine.reload(str(smollm2), ChatOptions(context_window_size=256))
        await replay.check(engine, num_cuts=4)
