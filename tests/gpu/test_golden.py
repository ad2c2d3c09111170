"""The WebGPU backend against transformers.

On software adapters with f32 activations they agree up to rounding; on a real GPU, as closely as
int8 activations allow.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from golden import compare
from model_files.forms import write_form
from model_files.made_up import CONFIGS, made_up
from webllm.backends.webgpu.backend import WebGPUBackend
from webllm.backends.webgpu.device import auto
from webllm.backends.webgpu.kernels.activation import ActivationFormat
from webllm.config import MLCEngineConfig
from webllm.engine.engine import MLCEngine


@pytest.mark.parametrize("name", ["smollm2-135m", "gemma3-270m"])
async def test_logits(name: str) -> None:
    backend = WebGPUBackend(await auto.open_device(await auto.find_adapter()))
    try:
        executable = await compare.load(backend, await compare.model_path(name))
        *_, last = prompts = compare.read(name)["prompts"]  # Gemma's last leaves the window
        agreements = [
            await compare.teacher_forced(executable, prompt) for prompt in [*prompts[:4], last]
        ]
    finally:
        backend.close()
    is_int8 = backend.variant.activation is ActivationFormat.I8
    (compare.check_int8 if is_int8 else compare.check_float)(agreements)


@pytest.mark.parametrize("name", CONFIGS)
async def test_made_up_logits(name: str, tmp_path: Path) -> None:
    write_form(made_up(name), tmp_path / "model.gguf", "gguf-f32")
    backend = WebGPUBackend(await auto.open_device(await auto.find_adapter()))
    try:
        executable = await compare.load(backend, tmp_path / "model.gguf")
        prompts = compare.read(name)["prompts"]
        agreements = [await compare.teacher_forced(executable, prompt) for prompt in prompts]
    finally:
        backend.close()
    is_int8 = backend.variant.activation is ActivationFormat.I8
    compare.check_made_up(agreements, compare.TINY_CPU if is_int8 else compare.TINY_GPU)


async def test_greedy_text() -> None:
    """The engine runs prefill, then decode with the token staying on the device."""
    prompt = next(p for p in compare.read("smollm2-135m")["prompts"] if p["name"] == "numbers")
    async with MLCEngine(MLCEngineConfig(device="webgpu")) as engine:
        await engine.reload(compare.MODEL_IDS["smollm2-135m"])
        reply = await engine.completions.create(
            prompt=prompt["prompt"], temperature=0, max_tokens=24
        )
    text = reply.choices[0].text
    assert len(text) > 20
    assert prompt["text"].startswith(text)
