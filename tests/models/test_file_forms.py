"""The same values in MLC's, safetensors' and GGUF's form give the same logits, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from golden import compare
from model_files.forms import FOLDERS, write_form
from model_files.gguf_writer import split_gguf, write_gguf
from model_files.made_up import CONFIGS, made_up
from model_files.mlc_writer import is_stored_by_mlc
from model_files.model import Model
from webllm import ChatOptions, MLCEngine, MLCEngineConfig
from webllm.artifacts.checkpoint import StorageType
from webllm.backends.cpu.backend import CPUBackend
from webllm.backends.cpu.native import NativeKernels
from webllm.config import read_config

# GGUF has the rotary frequencies' divisors as float32, where others have their formula.
ROUNDED_FREQUENCIES = {"tiny-llama3": 0.1}


async def logits_of(path: Path, quantized: StorageType | None = None) -> np.ndarray:
    """Returns the logits before each forced token, [num_tokens, vocab]."""
    [prompt, *_] = compare.read("tiny-qwen2")["prompts"]
    backend = CPUBackend(NativeKernels(2))
    executable = await compare.load(backend, path, quantized)
    logits = await compare.forced_logits(executable, prompt["prompt_ids"], prompt["token_ids"])
    backend.close()
    return logits


@pytest.mark.parametrize("name", CONFIGS)
async def test_folders_and_gguf(name: str, tmp_path: Path) -> None:
    model, checked = made_up(name), 0
    for form, kind in FOLDERS.items():
        if kind.is_mlc and not is_stored_by_mlc(model):
            continue
        folder, file = tmp_path / form, tmp_path / f"{form}.gguf"
        write_form(model, folder, form, shard_bytes=20_000)
        write_form(model, file, f"gguf-{form}")
        expected, found = await logits_of(file), await logits_of(folder)
        active = found.shape[1]  # a folder's vocabulary may end before the rows of the embedding
        errors = np.abs(found - expected[:, :active])
        assert errors.max() <= ROUNDED_FREQUENCIES.get(name, 0), form
        assert active >= model.vocabulary.num_active
        checked += 1
    assert checked >= 5


def write_quantized(model: Model, file: Path, dtype: StorageType) -> None:
    """Writes what `Checkpoint.quantize` makes of a model, as the package `gguf` computes it."""
    tokens = dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), Type.Q8_0)
    write_gguf(model, file, Type(dtype), tokens)


@pytest.mark.parametrize("form", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("dtype", [StorageType.Q4_0, StorageType.Q8_0], ids=lambda d: d.name)
@pytest.mark.parametrize("name", ["tiny-llama", "tiny-qwen2"])  # tied embeddings, and not
async def test_folders_quantized_on_load(
    name: str, dtype: StorageType, form: str, tmp_path: Path
) -> None:
    folder, file = tmp_path / form, tmp_path / "quantized.gguf"
    write_form(made_up(name), folder, form)
    write_quantized(FOLDERS[form].values(made_up(name)), file, dtype)
    expected, found = await logits_of(file), await logits_of(folder, dtype)
    assert np.array_equal(found, expected[:, : found.shape[1]])
    assert not np.array_equal(found, await logits_of(folder))


async def test_an_engine_quantizes_on_load(tmp_path: Path) -> None:
    """It answers as with a quantized file, and sessions tell that from the floats."""
    floats, quantized = tmp_path / "f16.gguf", tmp_path / "quantized.gguf"
    write_form(made_up("tiny-llama"), floats, "gguf-f16")
    write_quantized(FOLDERS["f16"].values(made_up("tiny-llama")), quantized, StorageType.Q4_0)
    found = []
    async with MLCEngine(MLCEngineConfig(device="cpu", persist=False)) as engine:
        for file, quantize in (
            (quantized, None),
            (quantized, "q4_0"),  # has no floats
            (floats, "q4_0"),
            (floats, None),
        ):
            await engine.reload(str(file), read_config({"quantize": quantize}, ChatOptions))
            completion = await engine.completions.create(
                prompt="a b c", max_tokens=8, temperature=0, logprobs=True, ignore_eos=True
            )
            found.append((completion.choices[0].logprobs, completion.system_fingerprint))
    answers, fingerprints = zip(*found, strict=True)
    assert answers[0] == answers[1] == answers[2] != answers[3]
    assert fingerprints[0] == fingerprints[1]
    assert len(set(fingerprints)) == 3


async def test_parts_of_a_gguf_file(tmp_path: Path) -> None:
    whole = tmp_path / "whole.gguf"
    write_form(made_up("tiny-qwen2"), whole, "gguf-q4f16_1")
    first, *others = split_gguf(whole, tmp_path, tensors_each=10)
    assert len(others) >= 2
    assert np.array_equal(await logits_of(first), await logits_of(whole))
