"""Recording, fusion and memory planning for every architecture, on made-up checkpoints."""

from __future__ import annotations

import cmath
import struct
from collections import Counter
from pathlib import Path

import gguf
import numpy as np
import pytest

from webllm.artifacts.local_files import open_local
from webllm.backends.cpu.memory_plan import plan_arena
from webllm.errors import CheckpointError, UnsupportedModelError
from webllm.models import registry
from webllm.models.rope import RopeScaling, frequencies
from webllm.ops.program import Attention, Linear, Norm, Program, RopeKV, values_of
from webllm.ops.values import Encoding, RopeTable, RowOrder, Rows, Value

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, WIDE, VOCAB = 64, 3, 4, 2, 32, 96, 50


def write_checkpoint(path: Path, arch: str, drop: str = "") -> Path:
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(WIDE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_sliding_window(16)
    for name, shape in tensors(arch).items():
        if name != drop:
            writer.add_tensor(name, np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tensors(arch: str) -> dict[str, tuple[int, ...]]:
    q, kv = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    block = {
        "attn_norm.weight": (HIDDEN,),
        "attn_q.weight": (q, HIDDEN),
        "attn_k.weight": (kv, HIDDEN),
        "attn_v.weight": (kv, HIDDEN),
        "attn_output.weight": (HIDDEN, q),
        "ffn_norm.weight": (HIDDEN,),
        "ffn_gate.weight": (WIDE, HIDDEN),
        "ffn_up.weight": (WIDE, HIDDEN),
        "ffn_down.weight": (HIDDEN, WIDE),
    }
    if arch == "qwen2":
        block |= {"attn_q.bias": (q,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
    if arch in ("qwen3", "gemma3"):
        block |= {"attn_q_norm.weight": (HEAD_DIM,), "attn_k_norm.weight": (HEAD_DIM,)}
    if arch == "gemma3":
        block |= {"post_attention_norm.weight": (HIDDEN,), "post_ffw_norm.weight": (HIDDEN,)}
    outer = {"token_embd.weight": (VOCAB, HIDDEN), "output_norm.weight": (HIDDEN,)}
    layers = {f"blk.{i}.{name}": s for i in range(LAYERS) for name, s in block.items()}
    return outer | layers


def record(tmp_path: Path, arch: str) -> Program:
    with open_local(write_checkpoint(tmp_path / "m.gguf", arch)) as checkpoint:
        return registry.record(checkpoint, 128)


@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3", "gemma3"])
def test_a_layer_is_seven_ops(tmp_path: Path, arch: str) -> None:
    program = record(tmp_path, arch)
    counts = Counter(type(op).__name__ for op in program.ops)
    assert counts == {
        "Embed": 1,
        "Norm": 2 * LAYERS + 1,
        "Linear": 3 * LAYERS + 1,
        "RopeKV": LAYERS,
        "Attention": LAYERS,
        "GatedLinear": LAYERS,
        "TakeOutputs": 2 if arch == "gemma3" else 1,
        "Sample": 1,
    }
    assert program.vocab_size == VOCAB
    weights = [*program.matrices(), *program.vectors()]
    assert len(weights) == len(tensors(arch)) - LAYERS * (4 if arch == "qwen2" else 2)


def test_values_are_written_before_they_are_read(tmp_path: Path) -> None:
    program = record(tmp_path, "gemma3")
    written: set[int] = set()
    for op in program.ops:
        *inputs, out = values_of(op)
        assert {v.id for v in inputs} <= written, op
        written.add(out.id)
    last = program.ops[-3]
    assert isinstance(last, Norm)
    assert last.branch is not None
    assert last.out.rows is Rows.OUTPUTS
    assert last.out.encoding is Encoding.ACTIVATION


def test_qwen_biases_and_norms_follow_their_rows(tmp_path: Path) -> None:
    qwen2, qwen3 = record(tmp_path, "qwen2"), record(tmp_path, "qwen3")
    bias = next(op.bias for op in qwen2.ops if isinstance(op, Linear) and op.bias)
    assert [part.order for part in bias.parts] == [
        RowOrder.HALVES_TO_PAIRS,
        RowOrder.HALVES_TO_PAIRS,
        RowOrder.AS_STORED,
    ]
    rope = next(op for op in qwen3.ops if isinstance(op, RopeKV))
    assert rope.q_gamma is not None
    assert rope.q_gamma.parts[0].order is RowOrder.HALVES_TO_PAIRS


def test_gemma_alternates_windows_and_ropes(tmp_path: Path) -> None:
    program = record(tmp_path, "gemma3")
    windows = [op.window for op in program.ops if isinstance(op, Attention)]
    assert windows == [16, 16, 16]  # the first global layer would be the sixth


def test_missing_tensor_is_named(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "m.gguf", "llama", drop="blk.1.ffn_up.weight")
    with (
        open_local(path) as checkpoint,
        pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj"),
    ):
        registry.record(checkpoint, 128)


def test_unknown_architecture_is_named(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "m.gguf", "mamba")
    with (
        open_local(path) as checkpoint,
        pytest.raises(UnsupportedModelError, match=r"'mamba' is not one of .* llama"),
    ):
        registry.record(checkpoint, 128)


def test_arena_never_overlaps_what_lives_together(tmp_path: Path) -> None:
    program = record(tmp_path, "gemma3")

    def bytes_of(value: Value) -> int:
        return 4 * value.cols * (7 if value.rows is Rows.TOKENS else 2)

    arena = plan_arena(program, bytes_of, alignment=64)
    lifetimes: dict[int, list[int]] = {}
    for index, op in enumerate(program.ops):
        for value in values_of(op):
            lifetimes.setdefault(value.id, []).append(index)
    values = program.values()
    for a in values:
        start = arena.offsets[a.id]
        assert start % 64 == 0
        assert start + bytes_of(a) <= arena.num_bytes
        for b in values:
            together = min(lifetimes[a.id][-1], lifetimes[b.id][-1]) >= max(
                lifetimes[a.id][0], lifetimes[b.id][0]
            )
            if a.id < b.id and together:
                other = arena.offsets[b.id]
                assert start + bytes_of(a) <= other or other + bytes_of(b) <= start
    assert arena.num_bytes < sum(bytes_of(v) for v in values) / 3


def test_rope_table_is_exact_far_out() -> None:
    f = frequencies(64, 10000.0, RopeScaling())
    table = RopeTable.build(f.inv_freq, 100_000)
    fine = list(struct.iter_unpack("=2f", table.fine))
    coarse = list(struct.iter_unpack("=2f", table.coarse))
    for position in (0, 1, 255, 256, 99_999):
        for pair in (0, 1, 31):
            a = complex(*fine[position % 256 * 32 + pair])
            b = complex(*coarse[position // 256 * 32 + pair])
            assert abs(a * b - cmath.exp(1j * position * f.inv_freq[pair])) < 3e-7


def test_yarn_keeps_fast_pairs_and_slows_the_rest() -> None:
    plain = frequencies(128, 1e6, RopeScaling()).inv_freq
    yarn = frequencies(128, 1e6, RopeScaling("yarn", 4.0, 32768))
    assert yarn.inv_freq[0] == plain[0]
    assert yarn.inv_freq[-1] == pytest.approx(plain[-1] / 4)
    assert yarn.scale == pytest.approx(1.1386294)
