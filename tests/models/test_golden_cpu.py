"""The CPU backend against transformers: with int8 activations, near-ties may differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from golden import compare
from model_files.forms import write_form
from model_files.made_up import CONFIGS, made_up
from webllm.backends.cpu.backend import CPUBackend
from webllm.backends.cpu.native import NativeKernels
from webllm.config import MLCEngineConfig
from webllm.engine.engine import MLCEngine

NAMES = ["smollm2-135m", "gemma3-270m"]


@pytest.mark.parametrize("name", NAMES)
async def test_logits(name: str) -> None:
    backend = CPUBackend(NativeKernels(2))
    executable = await compare.load(backend, await compare.model_path(name))
    agreements = [
        await compare.teacher_forced(executable, prompt) for prompt in compare.read(name)["prompts"]
    ]
    backend.close()
    compare.check_int8(agreements)


@pytest.mark.parametrize("name", CONFIGS)
async def test_made_up_logits(name: str, tmp_path: Path) -> None:
    write_form(made_up(name), tmp_path / "model.gguf", "gguf-f32")
    backend = CPUBackend(NativeKernels(2))
    executable = await compare.load(backend, tmp_path / "model.gguf")
    agreements = [
        await compare.teacher_forced(executable, prompt) for prompt in compare.read(name)["prompts"]
    ]
    backend.close()
    compare.check_made_up(agreements, compare.TINY_CPU)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", NAMES)
async def test_greedy_text(name: str, threads: int) -> None:
    """The text is the same, token for token, while every margin of the reference is wide."""
    wide = [p for p in compare.read(name)["prompts"] if p["wide_margin"]]
    assert len(wide) >= 2
    config = MLCEngineConfig(device="cpu", num_threads=threads)
    async with MLCEngine(config) as engine:
        await engine.reload(compare.MODEL_IDS[name])
        for prompt in wide:
            reply = await engine.completions.create(
                prompt=prompt["prompt"], temperature=0, max_tokens=64
            )
            assert reply.choices[0].text == prompt["text"]


async def test_every_instruction_set_agrees(smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from webllm.backends.cpu.native_library import variants

    prompt = compare.read("smollm2-135m")["prompts"][0]
    assert len(variants()) >= 2
    for isa in variants():
        monkeypatch.setenv("WEBLLM_CPU_ISA", isa)
        backend = CPUBackend(NativeKernels(1))
        assert isa in backend.name
        executable = await compare.load(backend, smollm2)
        assert (await compare.teacher_forced(executable, prompt)).mean_kl < 0.01, isa
        backend.close()
