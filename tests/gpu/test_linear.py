"""Matrix products of every kind against numpy: formats, activations, shapes off the tile sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_case import F32, I8, Bench, variant_of
from test_repack import random_rows

from storage_cases import TYPES, values_of
from webllm.artifacts.checkpoint import StorageType
from webllm.backends.webgpu.device.protocol import Device, Slice
from webllm.backends.webgpu.kernels.activation import ActivationFormat, Encoded
from webllm.backends.webgpu.kernels.linear import gated, linear
from webllm.backends.webgpu.kernels.linear.gemv import (
    GemvTiling,
    can_fuse_norm,
    gemv_tiling,
    linear_residual,
)
from webllm.backends.webgpu.kernels.matrix import Matrix, Shard, allocate, format_of
from webllm.backends.webgpu.kernels.repack import Chunk, repack
from webllm.ops.program import BatchShape
from webllm.ops.step import Step, StepSequence

GEMV_ROWS, GEMM_ROWS = 3, 75


class Case(Bench):
    """A matrix on the device, its values, and rows of x."""

    def __init__(
        self, device: Device, dtype: StorageType, rows: int, cols: int, tokens: int, seed: int = 0
    ) -> None:
        super().__init__(device)
        self.random = np.random.default_rng(seed)
        self.tokens = tokens
        planes = random_rows(dtype, rows, cols, seed)
        self.values = values_of(dtype, planes)
        self.matrix = allocate(device, rows, cols, format_of(dtype.storage))
        self._repack(dtype, planes)
        used = max(1, tokens - 1)  # the step does not fill its shape
        self.used = used
        shape = BatchShape(tokens, 2, tokens, 9)
        self.steps = self.step(Step([StepSequence([1] * used, used, [0] * 9, [0])]), shape)
        self.x = self.random.normal(0, 1, (tokens, cols)).astype(np.float32)

    def _repack(self, dtype: StorageType, planes: list[np.ndarray]) -> None:
        rows = len(planes[0])
        chunk = Chunk(0, rows, 0, 0, 1)
        staged = [self.upload(plane) for plane in planes]
        fault = self.upload(np.zeros(1, np.uint32))
        for shard in self.matrix.shards:
            params = self.upload(np.frombuffer(chunk.params(self.matrix, shard), np.uint32))
            self.run(repack(self.device, dtype, self.matrix, shard, params, staged, rows, fault))

    def encode(self, format: ActivationFormat) -> tuple[Encoded, np.ndarray]:
        """Encodes x in an activation format; returns it and its rounded values."""
        if format is F32:
            return Encoded(format, self.upload(self.x)), self.x
        groups = self.x.reshape(self.tokens, -1, 32)
        d = np.abs(groups).max(-1, keepdims=True) / 127
        q = np.rint(groups / d)
        scales = np.concatenate([d, d * q.sum(-1, keepdims=True)], -1).astype(np.float32)
        encoded = Encoded(format, self.upload(q.astype(np.int8)), self.upload(scales))
        return encoded, (q * d).reshape(self.x.shape).astype(np.float32)

    def floats(self, part: Slice, rows: int, cols: int) -> np.ndarray:
        return self.read(part)[: rows * cols].reshape(rows, cols)


def check(got: np.ndarray, want: np.ndarray, error: float = 2e-3) -> None:
    """Checks results relative to the largest one, because f16 scales of K formats are rounded."""
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, want, rtol=0, atol=error * max(1e-6, np.abs(want).max()))


def choices(rows: int) -> list[tuple[str, ActivationFormat]]:
    """Returns (variant, activation format) pairs."""
    names = ("subgroup", "workgroup") if rows <= 32 else ("workgroup",)
    return [("scalar", F32), *((name, format) for name in names for format in (I8, F32))]


@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("tokens", [GEMV_ROWS, GEMM_ROWS])
def test_every_format(device: Device, dtype: StorageType, tokens: int) -> None:
    case = Case(device, dtype, 100, 256, tokens)
    for name, format in [("scalar", F32), ("workgroup", I8), ("workgroup", F32)]:
        variant = variant_of(device, name, format)
        x, values = case.encode(format)
        out = case.poisoned(tokens * 100 * 4)
        step = case.steps
        case.run(
            linear(device, variant, step=step, rows=step.tokens, x=x, weight=case.matrix, out=out)
        )
        check(case.floats(out, case.used, 100), (values @ case.values.T)[: case.used])


@pytest.mark.parametrize(
    ("tokens", "rows", "cols"),
    [
        *((1, 33, 576), (2, 70, 1536), (8, 64, 96), (24, 70, 96), (64, 64, 64), (29, 64, 64)),
        *((70, 36, 96), (129, 130, 32)),
    ],
)
def test_shapes_off_the_tiles(device: Device, tokens: int, rows: int, cols: int) -> None:
    case = Case(device, StorageType.Q4_0, rows, cols, tokens)
    for name, format in choices(tokens):
        x, values = case.encode(format)
        bias = case.random.normal(0, 1, rows).astype(np.float32)
        before = case.random.normal(0, 1, (tokens, rows)).astype(np.float32)
        out = case.upload(before)
        step = case.steps
        case.run(
            linear(
                device, variant_of(device, name, format), step=step, rows=step.tokens, x=x,
                weight=case.matrix, out=out, bias=case.upload(bias), accumulate=True,
            )
        )  # fmt: skip
        want = before + values @ case.values.T + bias
        check(case.floats(out, case.used, rows), want[: case.used])


@pytest.mark.parametrize(
    ("tokens", "cols", "activation"),
    [(1, 576, "silu"), (8, 576, "gelu_tanh"), (16, 96, "silu"), (70, 96, "silu")],
)
def test_gated(device: Device, tokens: int, cols: int, activation: str) -> None:
    case = Case(device, StorageType.Q4_0 if cols % 256 else StorageType.Q4_K, 192, cols, tokens)
    for name, format in choices(tokens):
        x, values = case.encode(format)
        y = (values @ case.values.T).astype(np.float64)
        g, up = y[:, 0::2], y[:, 1::2]
        if activation == "silu":
            want = g / (1 + np.exp(-g)) * up
        else:
            want = 0.5 * g * (1 + np.tanh(np.sqrt(2 / np.pi) * (g + 0.044715 * g**3))) * up
        out = case.encoded(format, tokens, 96)
        step = case.steps
        case.run(
            gated(
                device, variant_of(device, name, format), step=step, rows=step.tokens, x=x,
                weight=case.matrix, activation=activation, out=out,
            )
        )  # fmt: skip
        got = case.decoded(out, tokens, 96)[: case.used] if tokens <= 32 else read_rows(case, out)
        check(got, want[: case.used], 6e-3 if format is I8 else 2e-3)


def read_rows(case: Case, out: Encoded) -> np.ndarray:
    """Returns the used rows of 96 columns; checks that the others were not written."""
    return case.decoded(out, case.used, 96)


@pytest.mark.parametrize("tokens", [1, 2, 8, 24])
@pytest.mark.parametrize("cols", [96, 576])
def test_norm_fused_into_producer_and_consumer(device: Device, tokens: int, cols: int) -> None:
    variant = variant_of(device, "subgroup")
    first = Case(device, StorageType.Q4_0, 128, cols, tokens)
    second = Case(device, StorageType.Q4_0, 64, 128, tokens, seed=1)
    step = first.steps
    assert can_fuse_norm(variant, step.tokens)
    x, values = first.encode(I8)
    before = first.random.normal(0, 1, (tokens, 128)).astype(np.float32)
    gamma = first.random.normal(1, 0.2, 128).astype(np.float32)
    residual = first.upload(before)
    middle = Encoded(I8, first.poisoned(tokens * 128), first.poisoned(2 * tokens * 4 * 8))
    outs = first.poisoned(tokens * 64 * 4)
    halves = first.encoded(I8, tokens, 32)
    common: dict[str, Any] = {
        "step": step, "rows": step.tokens, "weight": second.matrix, "norm_eps": 1e-5
    }  # fmt: skip
    first.run(
        [
            *linear_residual(
                device, variant, step=step, rows=step.tokens, x=x, weight=first.matrix,
                residual=residual, gamma=first.upload(gamma), out=middle,
            ),
            *linear(device, variant, x=middle, out=outs, **common),
            *gated(device, variant, x=middle, activation="silu", out=halves, **common),
        ]
    )  # fmt: skip
    want = before + values @ first.values.T
    check(first.floats(residual, tokens, 128), want)
    normed = want * gamma / np.sqrt((want**2).mean(-1, keepdims=True) + 1e-5)
    y = normed @ second.values.T
    check(first.floats(outs, tokens, 64), y, 2e-2)
    g, up = y[:, 0::2], y[:, 1::2]
    check(first.decoded(halves, tokens, 32), g / (1 + np.exp(-g)) * up, 3e-2)


@pytest.mark.parametrize("tokens", [2, 66])
def test_shards(device: Device, tokens: int) -> None:
    case = Case(device, StorageType.Q4_0, 512, 64, tokens)
    whole = case.matrix.shards[0]
    quants, scales = 256 * 2 * 16, 256 * 2 * 2
    shards = tuple(
        Shard(
            256 * i, 256,
            Slice(whole.quants.buffer, i * quants, quants),
            Slice(whole.scales.buffer, i * scales, scales),
        )
        for i in (0, 1)
    )  # fmt: skip
    matrix = Matrix(512, 64, case.matrix.format, shards)
    step = case.steps
    for name, format in choices(tokens):
        x, values = case.encode(format)
        out, half = case.poisoned(tokens * 512 * 4), case.encoded(format, tokens, 256)
        variant = variant_of(device, name, format)
        common: dict[str, Any] = {"step": step, "rows": step.tokens, "x": x, "weight": matrix}
        launched = linear(device, variant, out=out, **common)
        assert len(launched) == 2
        case.run(launched + gated(device, variant, activation="silu", out=half, **common))
        y = values @ case.values.T
        check(case.floats(out, case.used, 512), y[: case.used])
        rows = tokens if tokens <= 32 and name != "scalar" else case.used
        g, up = y[:rows, 0::2], y[:rows, 1::2]
        check(case.decoded(half, rows, 256), g / (1 + np.exp(-g)) * up, 6e-3)


def test_tilings() -> None:
    assert gemv_tiling(128, None, 32, 1024) == GemvTiling(128, 2, 1)
    assert gemv_tiling(448, None, 32, 1024) == GemvTiling(128, 2, 1)
    assert gemv_tiling(18, None, 32, 1024) == GemvTiling(32, 8, 1)
    assert gemv_tiling(160, None, 32, 1024) == GemvTiling(96, 2, 1)
    assert gemv_tiling(128, 32, 32, 1024) == GemvTiling(128, 4, 8)
    assert gemv_tiling(448, 16, 32, 1024) == GemvTiling(128, 8, 2)
    assert gemv_tiling(448, 16, 32, 256) == GemvTiling(128, 2, 8)
    assert gemv_tiling(48, 16, 0, 256) == GemvTiling(64, 4, 4)
