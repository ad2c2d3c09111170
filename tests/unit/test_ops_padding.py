"""Models of sizes that no kernel has give the logits of their definition."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from cpu_cases import (
    KERNELS,
    FakeCheckpoint,
    Runner,
    program_of_every_op,
    program_of_odd_sizes,
    relative_error,
)
from cpu_reference import Reference
from made_up_models import Sizes, draft_of

from webllm import MLCEngine, MLCEngineConfig
from webllm.artifacts.checkpoint import StorageType
from webllm.backends.cpu import weights
from webllm.backends.cpu.kernels import Kernels
from webllm.errors import UnsupportedModelError
from webllm.ops.padding import Blocks, padded
from webllm.ops.step import Step, StepSequence
from webllm.ops.values import RowOrder

F32, F16, Q8_0 = StorageType.F32, StorageType.F16, StorageType.Q8_0


@pytest.mark.parametrize("order", RowOrder)
@pytest.mark.parametrize(("dtype", "wide"), [(F32, F32), (F16, F16), (Q8_0, F32)])
@pytest.mark.parametrize("kernels", KERNELS.values(), ids=KERNELS)
def test_logits(
    kernels: Callable[[], Kernels],
    dtype: StorageType,
    wide: StorageType,
    order: RowOrder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(weights, "_PIECE_BYTES", 1)
    stored = FakeCheckpoint()
    original = program_of_odd_sizes(stored, dtype, wide, order)
    program, checkpoint = padded(original, stored)
    reference = Reference(original, stored, int8=True)
    with Runner(kernels(), program, checkpoint) as runner:
        for step in (
            Step([StepSequence([3, 1, 4, 1, 5], 5, [2], range(5))]),
            Step([StepSequence([9], 6, [2], [0])]),
        ):
            error = relative_error(reference.logits(step), runner.logits(step))
            assert error < (1e-2 if dtype is Q8_0 else 6e-3)  # the KV cache is f16


def test_sizes_that_kernels_have_stay() -> None:
    checkpoint = FakeCheckpoint()
    program = program_of_every_op(checkpoint, Q8_0)
    assert padded(program, checkpoint) == (program, checkpoint)


def test_columns_in_larger_blocks_are_refused() -> None:
    checkpoint = FakeCheckpoint()
    program = program_of_odd_sizes(checkpoint, F32, F32, RowOrder.AS_STORED)
    name = program.ops[5].weight.parts[0].tensor  # type: ignore[union-attr]
    checkpoint.put(name, Q8_0, (64, 64), bytes(64 * 68))
    with pytest.raises(UnsupportedModelError, match=f"{name} has columns in blocks of 8.*F16"):
        padded(program, checkpoint)


def test_blocks() -> None:
    blocks = Blocks(3, 5)
    assert [blocks.stored(index) for index in range(11)] == [0, 1, 2, 3, 3, 3, 4, 5, 6, 6, 6]
    assert blocks.total(6) == 10


async def test_a_model_file(tmp_path: Path) -> None:
    """The sizes of stories260K, which many use to try an engine."""
    sizes = Sizes("llama", hidden=64, wide=172, heads=8, kv_heads=4, head_dim=8, dtype=F32)
    file = tmp_path / "stories260K.gguf"
    file.write_bytes(draft_of(random.Random(0), sizes).packed())
    async with MLCEngine(MLCEngineConfig(device="cpu")) as engine:
        await engine.reload(str(file))
        reply = await engine.completions.create(prompt="ab", max_tokens=4, temperature=0)
        assert reply.usage is not None
        assert reply.usage.completion_tokens >= 1
