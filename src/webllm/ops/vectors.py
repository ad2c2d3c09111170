"""Reads a program's vectors (gammas, biases) out of a checkpoint, as f32."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from struct import unpack

from webllm.artifacts.checkpoint import Checkpoint, StorageType
from webllm.errors import CheckpointError, UnsupportedModelError
from webllm.ops.values import Part, RowOrder, Weight


def read_vector(weight: Weight, checkpoint: Checkpoint) -> array[float]:
    """Returns f32 [weight.rows], reordered as its parts say. `check_program` has checked the sizes.

    Raises UnsupportedModelError for a quantized vector, CheckpointError for NaN or infinity in one.
    """
    values = array("f")
    for part in weight.parts:
        numbers = _floats(part.tensor, checkpoint)
        if not math.isfinite(sum(numbers)):  # in double precision, which their sum cannot exceed
            raise CheckpointError(
                f"the vector {part.tensor} has numbers that are not finite; the file is damaged "
                "or was converted badly: download it again, or take another copy of the model"
            )
        if plus := checkpoint.tensors[part.tensor].plus:
            numbers = array("f", (number + plus for number in numbers))
        if part.order is RowOrder.HALVES_TO_PAIRS:
            numbers = array("f", (numbers[i] for i in _pair_order(part)))
        values.extend(numbers)
    return values


def _floats(tensor: str, checkpoint: Checkpoint) -> array[float]:
    data = checkpoint.data(tensor)
    match checkpoint.tensors[tensor].dtype:
        case StorageType.F32:
            return array("f", bytes(data))
        case StorageType.F16:
            return array("f", unpack(f"<{len(data) // 2}e", data))
        case StorageType.BF16:
            words = array("I", (half << 16 for half in memoryview(bytes(data)).cast("H")))
            return array("f", words.tobytes())
        case other:
            raise UnsupportedModelError(f"the vector {tensor} is stored as {other.name}")


def _pair_order(part: Part) -> Iterator[int]:
    half = part.head_dim // 2
    for head in range(0, part.rows, part.head_dim):
        for i in range(half):
            yield head + i
            yield head + half + i
