"""On WebGPU an answer that is cut anywhere and replayed goes on as it would have."""

from __future__ import annotations

from golden import compare, replay
from webllm import ChatOptions, MLCEngine, MLCEngineConfig


async def test_replays_go_on_as_undisturbed() -> None:
    path = await compare.model_path("smollm2-135m")
    async with MLCEngine(MLCEngineConfig(device="webgpu")) as engine:
        await engine.reload(str(path), ChatOptions(context_window_size=256))
        await replay.check(engine, num_cuts=1, max_tokens=16)
