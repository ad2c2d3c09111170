"""Vectors of a checkpoint as f32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cpu_cases import FakeCheckpoint

from webllm.artifacts.checkpoint import StorageType
from webllm.errors import CheckpointError
from webllm.ops.values import RowOrder, Weight
from webllm.ops.vectors import read_vector

NUMBERS = np.array([1.5, -2.0, 0.25, 3e38], "<f4")


def stored(dtype: StorageType, numbers: np.ndarray) -> FakeCheckpoint:
    checkpoint, data = FakeCheckpoint(), numbers
    if dtype is StorageType.F16:
        data = numbers.astype("<f2")
    elif dtype is StorageType.BF16:
        data = (numbers.view("<u4") >> 16).astype("<u2")
    checkpoint.put("norm", dtype, numbers.shape, data.tobytes())
    return checkpoint


def test_numbers_are_reordered_and_added_to() -> None:
    checkpoint = stored(StorageType.F32, NUMBERS)
    checkpoint.tensors["norm"] = replace(checkpoint.tensors["norm"], plus=1.0)
    pairs = Weight.of("norm", 4, 1, RowOrder.HALVES_TO_PAIRS, 4)
    assert read_vector(Weight.of("norm", 4), checkpoint).tolist() == (NUMBERS + 1).tolist()
    assert read_vector(pairs, checkpoint).tolist() == (NUMBERS + 1)[[0, 2, 1, 3]].tolist()


@pytest.mark.parametrize("dtype", [StorageType.F32, StorageType.F16, StorageType.BF16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(dtype: StorageType, value: float) -> None:
    numbers = NUMBERS[:3].copy()
    numbers[1] = value
    with pytest.raises(CheckpointError, match="the vector norm has numbers that are not finite"):
        read_vector(Weight.of("norm", 3), stored(dtype, numbers))


def test_large_numbers_are_finite() -> None:
    huge = np.full(1000, 3e38, "<f4")
    assert len(read_vector(Weight.of("norm", 1000), stored(StorageType.F32, huge))) == 1000
