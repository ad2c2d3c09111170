"""The WebGPU backend against transformers: f32 activations, so it agrees to rounding."""

from __future__ import annotations

import pytest

from golden import compare
from webllm.engine.engine import MLCEngine, MLCEngineConfig
from webllm.gpu import native
from webllm.ops.webgpu import WebGPUBackend

CLOSE = 0.05  # nats


@pytest.mark.parametrize("name", ["smollm2-135m", "gemma3-270m"])
async def test_logits(name: str) -> None:
    backend = WebGPUBackend(native.open_device())
    executable = await compare.load(backend, await compare.model_path(name))
    try:
        for prompt in compare.read(name)["prompts"][:5]:
            agreement = await compare.teacher_forced(executable, prompt)
            assert agreement.worst_logprob_error <= CLOSE, prompt["name"]
            assert agreement.worst_missed_margin <= CLOSE, prompt["name"]
    finally:
        backend.close()


async def test_greedy_text() -> None:
    """Through the engine: prefill, then decoding with the token staying on the device."""
    prompt = next(p for p in compare.read("smollm2-135m")["prompts"] if p["name"] == "numbers")
    async with MLCEngine(MLCEngineConfig(device="webgpu")) as engine:
        await engine.reload(compare.MODEL_IDS["smollm2-135m"])
        reply = await engine.completions.create(
            prompt=prompt["prompt"], temperature=0, max_tokens=24
        )
    text = reply.choices[0].text
    assert len(text) > 20
    assert prompt["text"].startswith(text)
