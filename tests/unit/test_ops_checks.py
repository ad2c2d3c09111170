"""Models that the kernels could not run safely are refused before they are loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import gguf
import numpy as np
import pytest
from cpu_cases import FakeCheckpoint, program_of_every_op

from webllm.artifacts.checkpoint import StorageType
from webllm.artifacts.local_files import open_local
from webllm.backends.cpu.backend import CPUBackend
from webllm.backends.cpu.native import NativeKernels
from webllm.errors import CheckpointError, UnsupportedModelError, WebLLMError
from webllm.models import registry
from webllm.ops.checks import check_program
from webllm.ops.program import Attention, BatchShape, Linear, Norm, Op, Program, RopeKV
from webllm.ops.values import RopeTable, Weight

ARCHITECTURES = ["llama", "qwen2", "qwen3", "gemma3"]
SIZES = {"hidden": 64, "wide": 96, "heads": 4, "kv_heads": 2, "head_dim": 32, "vocab": 50}
LIMITS = BatchShape(max_tokens=8, max_seqs=1, max_outputs=1, max_blocks=8)


def write_model(
    path: Path,
    arch: str,
    metadata: Mapping[str, float] | None = None,
    tokens: int | None = None,
    **sizes: int,
) -> Path:
    """Writes a model of one layer; its tensors have the sizes that its metadata gives."""
    size = SIZES | sizes
    hidden, wide, head_dim = size["hidden"], size["wide"], size["head_dim"]
    q, kv = size["heads"] * head_dim, size["kv_heads"] * head_dim
    layer = {
        "attn_norm.weight": (hidden,), "ffn_norm.weight": (hidden,),
        "attn_q.weight": (q, hidden), "attn_k.weight": (kv, hidden), "attn_v.weight": (kv, hidden),
        "attn_output.weight": (hidden, q), "ffn_gate.weight": (wide, hidden),
        "ffn_up.weight": (wide, hidden), "ffn_down.weight": (hidden, wide),
    }  # fmt: skip
    if arch == "qwen2":
        layer |= {"attn_q.bias": (q,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
    if arch in ("qwen3", "gemma3"):
        layer |= {"attn_q_norm.weight": (head_dim,), "attn_k_norm.weight": (head_dim,)}
    if arch == "gemma3":
        layer |= {"post_attention_norm.weight": (hidden,), "post_ffw_norm.weight": (hidden,)}
    tensors: dict[str, tuple[int, ...]] = {f"blk.0.{name}": s for name, s in layer.items()}
    tensors |= {"token_embd.weight": (size["vocab"], hidden), "output_norm.weight": (hidden,)}
    values: dict[str, float] = {
        "block_count": 1, "context_length": 128, "embedding_length": hidden,
        "feed_forward_length": wide, "attention.head_count": size["heads"],
        "attention.head_count_kv": size["kv_heads"], "attention.key_length": head_dim,
        "attention.sliding_window": 16, "attention.layer_norm_rms_epsilon": 1e-5,
    } | dict(metadata or {})  # fmt: skip
    writer = gguf.GGUFWriter(path, arch)
    for key, value in values.items():
        if isinstance(value, float):
            writer.add_float64(f"{arch}.{key}", value)
        else:
            writer.add_uint32(f"{arch}.{key}", value)
    if tokens is not None:
        writer.add_token_list(["a"] * tokens)
    for name, shape in tensors.items():
        writer.add_tensor(name, np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def load(path: Path) -> None:
    """Loads a model onto the CPU."""
    backend = CPUBackend(NativeKernels(1))
    try:
        with open_local(path) as checkpoint:
            program = registry.record(checkpoint, 128)
            backend.check_fits(program, checkpoint, 8)
            asyncio.run(backend.load(program, checkpoint, 8, LIMITS, lambda *_: None))
    finally:
        backend.close()


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_sound_model_loads(tmp_path: Path, arch: str) -> None:
    load(write_model(tmp_path / "m.gguf", arch))


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("sizes", [{"wide": 1}, {"hidden": 1}], ids=str)
def test_a_matrix_of_one_column_is_no_vector(
    tmp_path: Path, arch: str, sizes: dict[str, int]
) -> None:
    path = write_model(tmp_path / "m.gguf", arch, None, **sizes)
    with pytest.raises(UnsupportedModelError, match=r"is 1; only|has 1 columns"):
        load(path)
    with open_local(path) as checkpoint, pytest.raises(UnsupportedModelError):
        check_program(registry.record(checkpoint, 128), checkpoint, LIMITS, max_head_dim=256)


@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden": 48},
        {"wide": 16},
        {"wide": 33},
        {"head_dim": 8},
        {"head_dim": 24},
        {"head_dim": 528},
        {"heads": 3},
        {"heads": 1, "kv_heads": 1, "head_dim": 16},
        {"kv_heads": 8},
    ],
    ids=str,
)
def test_sizes_that_no_kernel_has(tmp_path: Path, sizes: dict[str, int]) -> None:
    with pytest.raises(UnsupportedModelError):
        load(write_model(tmp_path / "m.gguf", "llama", None, **sizes))


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(
    "metadata",
    [
        {"attention.key_length": 1 << 20},
        {"attention.key_length": (1 << 31) - 1},
        {"attention.head_count": (1 << 31) - 1},
        {"attention.head_count_kv": (1 << 31) - 1},
        {"block_count": (1 << 31) - 1},
        {"embedding_length": (1 << 31) - 1},
        {"feed_forward_length": (1 << 31) - 1},
        {"attention.layer_norm_rms_epsilon": 1e300},
        {"rope.freq_base": 1e300},
        {"rope.scaling.factor": 1e-320},
    ],
    ids=str,
)
def test_numbers_are_checked_before_anything_is_made_of_them(
    tmp_path: Path, arch: str, metadata: dict[str, float]
) -> None:
    """With a window of 2**31 positions, a table would take minutes to compute."""
    path = write_model(tmp_path / "m.gguf", arch, {"context_length": (1 << 31) - 1, **metadata})
    with open_local(path) as checkpoint, pytest.raises(CheckpointError):
        registry.record(checkpoint, (1 << 31) - 1)


OpT = TypeVar("OpT", bound=Op)


def changed(kind: type[OpT], change: Callable[[OpT], OpT]) -> Callable[[Program], Program]:
    return lambda program: replace(
        program, ops=tuple(change(op) if isinstance(op, kind) else op for op in program.ops)
    )


# Tensors of `program_of_every_op`: the embedding's, and a vector of 256 values.
TABLE, VECTOR = "tensor.0", "tensor.1"
MISTAKES: dict[str, Callable[[Program], Program]] = {
    "encoding": changed(Linear, lambda op: replace(op, x=replace(op.x, encoding=op.out.encoding))),
    "columns": changed(Linear, lambda op: replace(op, out=replace(op.out, cols=32))),
    "bias": changed(Linear, lambda op: replace(op, bias=Weight.of(VECTOR, 64))),
    "gamma": changed(Norm, lambda op: replace(op, gamma=Weight.of(VECTOR, 32))),
    "layer": changed(Attention, lambda op: replace(op, layer=1)),
    "short tables": changed(RopeKV, lambda op: replace(op, rope=RopeTable((1.0, 0.5), 0))),
    "wide tables": changed(RopeKV, lambda op: replace(op, rope=RopeTable((1.0,) * 18, 128))),
    "head norm": changed(RopeKV, lambda op: replace(op, q_gamma=Weight.of(VECTOR, 64))),
    "tensor bytes": changed(Norm, lambda op: replace(op, gamma=Weight.of(TABLE, op.gamma.rows))),
    "vocabulary": lambda program: replace(program, vocab_size=51),
    "order": lambda program: replace(program, ops=(*program.ops[-1:], *program.ops[:-1])),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_programs_whose_sizes_do_not_agree(mistake: str) -> None:
    checkpoint = FakeCheckpoint()
    program = program_of_every_op(checkpoint, StorageType.Q8_0)
    check_program(program, checkpoint, LIMITS, max_head_dim=256)
    with pytest.raises(WebLLMError) as caught:
        check_program(MISTAKES[mistake](program), checkpoint, LIMITS, max_head_dim=256)
    assert len(str(caught.value)) < 160


def test_a_window_longer_than_the_tables(tmp_path: Path) -> None:
    with open_local(write_model(tmp_path / "m.gguf", "llama")) as checkpoint:
        program = registry.record(checkpoint, 128)
        shape = replace(LIMITS, max_blocks=17)
        with pytest.raises(UnsupportedModelError, match="256 positions rotate, 272 may come"):
            check_program(program, checkpoint, shape, max_head_dim=256)


def test_a_vocabulary_of_another_size_than_the_embeddings(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", "llama", tokens=51)
    with pytest.raises(CheckpointError, match="50 rows for a vocabulary of 51 tokens"):
        open_local(path)
