"""The same values in MLC's, safetensors' and GGUF's form give the same logits, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from golden import compare
from model_files.forms import FOLDERS, write_form
from model_files.gguf_writer import split_gguf
from model_files.made_up import CONFIGS, made_up
from model_files.mlc_writer import is_stored_by_mlc
from webllm.backends.cpu.backend import CPUBackend
from webllm.backends.cpu.native import NativeKernels

# GGUF has the rotary frequencies' divisors as float32, where others have their formula.
ROUNDED_FREQUENCIES = {"tiny-llama3": 0.1}


async def logits_of(path: Path) -> np.ndarray:
    """Returns the logits before each forced token, [num_tokens, vocab]."""
    [prompt, *_] = compare.read("tiny-qwen2")["prompts"]
    backend = CPUBackend(NativeKernels(2))
    executable = await compare.load(backend, path)
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


async def test_parts_of_a_gguf_file(tmp_path: Path) -> None:
    whole = tmp_path / "whole.gguf"
    write_form(made_up("tiny-qwen2"), whole, "gguf-q4f16_1")
    first, *others = split_gguf(whole, tmp_path, tensors_each=10)
    assert len(others) >= 2
    assert np.array_equal(await logits_of(first), await logits_of(whole))
