"""Rotation, head norms and KV cache writes against numpy."""

import numpy as np
import pytest
from kernel_case import POISON, Array, Bench, variants

import reference
from webllm.backends.webgpu.device.protocol import Device
from webllm.backends.webgpu.kernels.kv_cache import BLOCK_SIZE, KVSlices, kv_bytes
from webllm.backends.webgpu.kernels.rope_kv import Rope, rope_kv
from webllm.ops.program import BatchShape, Heads
from webllm.ops.step import Step, StepSequence
from webllm.ops.values import RopeTable


@pytest.mark.parametrize(
    ("head_dim", "rotary", "normed"),
    [
        (64, 1.0, "none"),
        (64, 0.5, "none"),
        (80, 1.0, "both"),
        (96, 0.5, "k"),
        (128, 1.0, "both"),
        (256, 1.0, "k"),
    ],
)
def test_rope_kv(device: Device, head_dim: int, rotary: float, normed: str) -> None:
    bench = Bench(device)
    random = np.random.default_rng(head_dim)
    heads = Heads(4, 2, head_dim)
    shape = BatchShape(max_tokens=8, max_seqs=3, max_outputs=3, max_blocks=40)
    sequences = [
        StepSequence([1] * 3, 19, [5, 2], []),
        StepSequence([1], 600, [7] * 37 + [1], []),
        StepSequence([1] * 2, 2, [3], []),
    ]
    step = bench.step(Step(sequences), shape)
    positions, slots = np.array([16, 17, 18, 599, 0, 1]), np.array([32, 33, 34, 23, 48, 49])
    rotary_dim = int(head_dim * rotary)
    table = RopeTable.build([1e4 ** (-2 * i / rotary_dim) for i in range(rotary_dim // 2)], 1024)
    rope = Rope(
        bench.upload(np.frombuffer(table.fine, np.float32)),
        bench.upload(np.frombuffer(table.coarse, np.float32)),
        rotary_dim,
    )
    qkv = random.normal(0, 2, (8, heads.qkv_cols)).astype(np.float32)
    q_gamma, k_gamma = random.normal(1, 0.3, (2, head_dim)).astype(np.float32)
    want_q, want_k, want_v = reference.rope_kv(
        qkv[:6], heads, table, positions,
        q_gamma if normed == "both" else None, k_gamma if normed != "none" else None, 1e-5,
    )  # fmt: skip
    for variant in variants(device):
        size = kv_bytes(variant, 8, 2, head_dim)
        kv = KVSlices(bench.poisoned(size), bench.poisoned(size))
        qkv_slice = bench.upload(qkv)
        bench.run(
            rope_kv(
                device, variant, step=step, qkv=qkv_slice, num_q=4, num_kv=2, head_dim=head_dim,
                rope=rope, kv=kv, eps=1e-5,
                q_gamma=bench.upload(q_gamma) if normed == "both" else None,
                k_gamma=bench.upload(k_gamma) if normed != "none" else None,
            )
        )  # fmt: skip
        got = bench.read(qkv_slice)[: qkv.size].reshape(qkv.shape)
        q_cols = 4 * head_dim
        np.testing.assert_allclose(got[:6, :q_cols], want_q.reshape(6, -1), rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(got[:6, q_cols:], qkv[:6, q_cols:])
        np.testing.assert_array_equal(got[6:], qkv[6:])
        for part, want, is_key in ((kv.keys, want_k, True), (kv.values, want_v, False)):
            check_kv(bench.written(part, size), want, slots, variant.kv_f16, is_key)


def check_kv(words: Array, want: Array, slots: Array, is_f16: bool, is_key: bool) -> None:
    """Checks that exactly the step's slots are written, each at its place in the layout."""
    heads, head_dim = want.shape[1:]
    unit_words = 2 if is_f16 else 4
    if is_key:
        units = words.reshape(-1, heads, head_dim // 4, BLOCK_SIZE, unit_words)
        units = units.transpose(0, 3, 1, 2, 4)
    else:
        units = words.reshape(-1, heads, BLOCK_SIZE, head_dim // 4, unit_words)
        units = units.transpose(0, 2, 1, 3, 4)
    by_slot = units.reshape(-1, heads, head_dim // 4 * unit_words)  # [slots, heads, ...]
    others = np.setdiff1d(np.arange(len(by_slot)), slots)
    assert (by_slot[others] == POISON).all()
    got: Array = np.ascontiguousarray(by_slot[slots]).view(np.float16 if is_f16 else np.float32)
    tolerance = 2e-3 if is_f16 else 1e-4
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
