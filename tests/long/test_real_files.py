"""Real models in MLC's, safetensors' and split form, written here from their GGUF files.

The first run fetches the models (491 MB for Qwen2.5-Coder). Each is quantized once more to 4 bits:
MLC's folder and the Q4_0 file then have the same values, and their logits have to be the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from golden import compare
from model_files.forms import write_form
from model_files.gguf_reader import read_gguf
from model_files.gguf_writer import split_gguf
from webllm import MLCEngine, MLCEngineConfig
from webllm.backends.auto import open_backend

NAMES = ["smollm2-135m", "gemma3-270m", "qwen2.5-coder-0.5b"]
DEVICES = ["cpu", "webgpu"]
SHARD_BYTES = 100_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for files of gigabytes, which are deleted at once."""
    yield tmp_path
    shutil.rmtree(tmp_path)


async def logits_of(path: Path, name: str, device: str) -> np.ndarray:
    prompt = compare.read(name)["prompts"][0]
    backend = await open_backend(device)
    try:
        executable = await compare.load(backend, path)
        return await compare.forced_logits(executable, prompt["prompt_ids"], prompt["token_ids"])
    finally:
        backend.close()


async def answer_of(path: Path, text: str) -> str:
    async with MLCEngine(MLCEngineConfig(device="cpu")) as engine:
        await engine.reload(str(path))
        reply = await engine.completions.create(prompt=text, temperature=0, max_tokens=12)
        return str(reply.choices[0].text)


@pytest.mark.parametrize("name", NAMES)
async def test_mlc_and_q4_0(name: str, folder: Path) -> None:
    model = read_gguf(await compare.model_path(name))
    mlc, gguf = folder / "mlc", folder / "q4_0.gguf"
    write_form(model, mlc, "q4f16_1")
    write_form(model, gguf, "gguf-q4f16_1")
    for device in DEVICES if name == "smollm2-135m" else ["cpu"]:
        found, expected = [await logits_of(path, name, device) for path in (mlc, gguf)]
        assert found.shape[1] >= model.vocabulary.num_active
        assert np.array_equal(found, expected[:, : found.shape[1]]), device
    text = "Ünïcode, 12345 tabs\t\tand   spaces:\n\n  «日本語» 🙂 The answer is"
    assert await answer_of(mlc, text) == await answer_of(gguf, text)


@pytest.mark.parametrize("name", NAMES)
async def test_f16_safetensors(name: str, folder: Path) -> None:
    """Shards of float16 are as close to the golden logits as float weights are."""
    write_form(read_gguf(await compare.model_path(name)), folder, "f16", SHARD_BYTES)
    assert len(list(folder.glob("model-*.safetensors"))) >= 3
    backend = await open_backend("cpu")
    try:
        executable = await compare.load(backend, folder)
        prompts = compare.read(name)["prompts"]
        agreements = [await compare.teacher_forced(executable, prompt) for prompt in prompts]
    finally:
        backend.close()
    compare.check_float(agreements)


async def test_split_gguf(folder: Path) -> None:
    whole = await compare.model_path("smollm2-135m")
    first, *others = split_gguf(whole, folder, tensors_each=50, stem="smollm2")
    assert len(others) == 5
    parts = await logits_of(first, "smollm2-135m", "cpu")
    assert np.array_equal(parts, await logits_of(whole, "smollm2-135m", "cpu"))


@pytest.mark.parametrize("device", DEVICES)
async def test_golden_logits_of_qwen2(device: str) -> None:
    prompts = compare.read("qwen2.5-coder-0.5b")["prompts"]
    backend = await open_backend(device)
    try:
        executable = await compare.load(backend, await compare.model_path("qwen2.5-coder-0.5b"))
        agreements = [await compare.teacher_forced(executable, prompt) for prompt in prompts]
    finally:
        backend.close()
    (compare.check_int8 if device == "cpu" else compare.check_float)(agreements)
