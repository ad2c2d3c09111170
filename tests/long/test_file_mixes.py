"""Made-up models of every architecture and storage type, and of mixed ones, on both backends.

The reference for the logits of a file is the same file with its weights stored as F32, which the
`gguf` package converts.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, dequantize, quantize
from made_up_models import ARCHITECTURES, SUPPORTED, Draft, Sizes, draft_of, random_bytes

from golden import compare, together
from long.figures import SEED, AddFigures, count
from webllm import MLCEngine, MLCEngineConfig
from webllm.artifacts.checkpoint import StorageType
from webllm.backends.auto import open_backend

NUM_MIXES = count("MIXES", 60)
SIZES = Sizes("llama", hidden=256, wide=512, heads=8, head_dim=32)  # rows of any storage type
FLOATS = (StorageType.F32, StorageType.F16, StorageType.BF16)
SPREAD = 0.06  # standard deviation of weights
DEVICES = ("cpu", "webgpu")
WORST = 0.2  # error of a logit, relative to the spread of all; int8 activations: seldom over 0.1
PROMPT, ANSWER = list(b"The quick brown fox jumps over "), list(b"the lazy dog")
GREEDY: dict[str, Any] = {"max_tokens": 6, "temperature": 0, "ignore_eos": True}
REQUESTS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "Hi ab"}], **GREEDY},
    {"prompt": "ab Hi", "n": 2, **GREEDY},
    {"prompt": "ab Hi, once more", **GREEDY, "temperature": 1.0, "seed": 1},
]


@pytest.mark.parametrize("arch", ARCHITECTURES)
async def test_every_storage_type(arch: str, tmp_path: Path, add_figures: AddFigures) -> None:
    worst = dict.fromkeys(DEVICES, 0.0)
    for dtype in SUPPORTED:
        draft = made_up(random.Random(f"{arch} {dtype}"), replace(SIZES, arch=arch), [dtype])
        note(worst, await errors_of(draft, tmp_path), f"{arch} {dtype.name}")
    add_figures(f"files, {arch}", {"storage types": len(SUPPORTED), **described(worst)})


async def test_mixed_storage_types(tmp_path: Path, add_figures: AddFigures) -> None:
    """Each matrix has a type of its own, which is more than a quantizer does."""
    worst = dict.fromkeys(DEVICES, 0.0)
    for index in range(NUM_MIXES):
        rng = random.Random(f"{SEED} {index}")
        sizes = replace(
            SIZES,
            arch=rng.choice(ARCHITECTURES),
            kv_heads=rng.choice([1, 2, 4, 8]),
            layers=rng.choice([1, 2, 3]),
            norms=rng.choice(FLOATS),
            tokenizer=rng.choice(["gpt2", "llama"]),
        )
        errors = await errors_of(made_up(rng, sizes, SUPPORTED), tmp_path)
        note(worst, errors, f"seed {SEED}, mix {index}: {sizes}")
    add_figures("files, mixed types", {"files": NUM_MIXES, **described(worst)})


def made_up(rng: random.Random, sizes: Sizes, dtypes: list[StorageType]) -> Draft:
    """Makes a model whose matrices have random types of `dtypes`."""
    draft = draft_of(rng, sizes)
    for tensor in draft.tensors:
        if len(tensor.sizes) == 2:
            tensor.type_id = dtype = rng.choice(dtypes)
            tensor.data = weights(rng, dtype, tensor.sizes[0] * tensor.sizes[1])
    return draft


def weights(rng: random.Random, dtype: StorageType, num_values: int) -> bytearray:
    if dtype not in FLOATS:
        return blocks(rng, dtype, num_values, block_scale(dtype))
    values = np.random.default_rng(rng.randrange(2**32)).normal(0, SPREAD, num_values)
    return bytearray(quantize(values.astype(np.float32), GGMLQuantizationType(dtype)).tobytes())


def blocks(rng: random.Random, dtype: StorageType, num_values: int, scale: float) -> bytearray:
    """Returns random blocks; the middle of the values is 0, also of types with a minimum."""
    data = random_bytes(rng, dtype, num_values, scale)
    if middle := {StorageType.Q4_1: 7.5, StorageType.Q5_1: 15.5}.get(dtype):
        for block in range(0, len(data), dtype.block_bytes):
            data[block + 2 : block + 4] = np.float16(-middle * scale).tobytes()
    return data


@cache
def block_scale(dtype: StorageType) -> float:
    """Returns the scale of blocks that gives random weights their spread."""
    stored = np.frombuffer(blocks(random.Random(0), dtype, 1 << 16, 1.0), np.uint8)
    return SPREAD / float(dequantize(stored, GGMLQuantizationType(dtype)).std())


def stored_as_f32(draft: Draft) -> Draft:
    plain = Draft(draft.entries)
    for tensor in draft.tensors:
        stored = np.frombuffer(tensor.data, np.uint8)
        values = dequantize(stored, GGMLQuantizationType(tensor.type_id))
        data = bytearray(values.astype("<f4").tobytes())
        plain.tensors.append(replace(tensor, type_id=StorageType.F32, data=data))
    return plain


async def errors_of(draft: Draft, folder: Path) -> dict[str, float]:
    """Asks a model on each device; returns the worst error of its logits, relative to their spread.

    The answers must be the same alone and together.
    """
    file, reference = folder / "model.gguf", folder / "reference.gguf"
    file.write_bytes(draft.packed())
    reference.write_bytes(stored_as_f32(draft).packed())
    expected = await logits_of(reference, "cpu")
    errors = {}
    for device in DEVICES:
        differences = np.abs(await logits_of(file, device) - expected)
        errors[device] = float((differences.max(axis=1) / expected.std(axis=1)).max())
        async with MLCEngine(MLCEngineConfig(device=device)) as engine:
            await engine.reload(str(file))
            await together.check(engine, REQUESTS)
    return errors


async def logits_of(file: Path, device: str) -> np.ndarray:
    """Returns the logits before each token of the answer, [num_tokens, vocab]."""
    backend = await open_backend(device)
    try:
        return await compare.forced_logits(await compare.load(backend, file), PROMPT, ANSWER)
    finally:
        backend.close()


def note(worst: dict[str, float], errors: dict[str, float], file: str) -> None:
    for device, error in errors.items():
        assert error < WORST, f"{file} on {device}: the logits are off by {error:.3g}"
        worst[device] = max(worst[device], error)


def described(worst: dict[str, float]) -> dict[str, float]:
    return {f"worst error on {device}": error for device, error in worst.items()}
