"""What a model file does not compute is refused by name, never ignored."""

from __future__ import annotations

import pytest
from cpu_cases import FakeCheckpoint

from webllm.artifacts.checkpoint import Plane, StorageType, TensorInfo
from webllm.artifacts.gguf.reader import translated
from webllm.errors import CheckpointError, UnsupportedModelError
from webllm.models import registry
from webllm.ops.program import RopeKV

HIDDEN, HEAD_DIM = 64, 16
METADATA: dict[str, object] = {
    "general.architecture": "llama",
    "llama.block_count": 1,
    "llama.context_length": 128,
    "llama.embedding_length": HIDDEN,
    "llama.feed_forward_length": 96,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.dimension_count": HEAD_DIM,
    "llama.attention.value_length": HEAD_DIM,
    "llama.expert_count": 0,
}
SHAPES = {
    "token_embd.weight": (50, HIDDEN),
    "output_norm.weight": (HIDDEN,),
    "blk.0.attn_norm.weight": (HIDDEN,),
    "blk.0.ffn_norm.weight": (HIDDEN,),
    "blk.0.attn_q.weight": (HIDDEN, HIDDEN),
    "blk.0.attn_k.weight": (32, HIDDEN),
    "blk.0.attn_v.weight": (32, HIDDEN),
    "blk.0.attn_output.weight": (HIDDEN, HIDDEN),
    "blk.0.ffn_gate.weight": (96, HIDDEN),
    "blk.0.ffn_up.weight": (96, HIDDEN),
    "blk.0.ffn_down.weight": (HIDDEN, 96),
}


def record(changes: dict[str, object], *more: str) -> RopeKV:
    """Records a llama model with changed metadata and more tensors; returns its rotation."""
    shapes: dict[str, tuple[int, ...]] = {**SHAPES, **dict.fromkeys(more, (HIDDEN,))}
    tensors = [TensorInfo(n, s, StorageType.F32, (Plane("", 0),)) for n, s in shapes.items()]
    described = translated(METADATA | changes, tensors, "0badcafe")
    checkpoint = FakeCheckpoint(described.config)
    checkpoint.tensors.update(described.tensors)
    program = registry.record(checkpoint, 128)
    return next(op for op in program.ops if isinstance(op, RopeKV))


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("rope.dimension_count", 8, r"llama\.rope\.dimension_count to 8"),
        ("attention.value_length", 8, r"llama\.attention\.value_length to 8"),
        ("expert_count", 8, r"llama\.expert_count to 8 \(a mixture of experts\)"),
        ("logit_scale", 0.5, r"llama\.logit_scale"),
        ("rope.scaling.yarn_log_multiplier", 0.1, r"rope_scaling\.yarn_log_multiplier"),
        ("rope.scaling.type", "longrope", "rope scaling 'longrope'"),
        ("a.key.nobody.knows", "x", r"llama\.a\.key\.nobody\.knows to x"),
    ],
)
def test_settings_that_are_not_computed(key: str, value: object, named: str) -> None:
    with pytest.raises(UnsupportedModelError, match=named):
        record({f"llama.{key}": value})


@pytest.mark.parametrize(
    ("tensor", "named"),
    [
        ("blk.0.attn_q.bias", r"model\.layers\.0\.self_attn\.q_proj\.bias"),
        ("blk.0.attn_output.bias", r"self_attn\.o_proj\.bias"),
        ("blk.0.ffn_down.scale", r"mlp\.down_proj\.scale"),
        ("blk.0.attn_q_norm.weight", r"self_attn\.q_norm"),
        ("blk.0.ffn_gate_exps.weight", r"blk\.0\.ffn_gate_exps\.weight \(a mixture of experts\)"),
        ("blk.1.attn_norm.weight", r"model\.layers\.1\.input_layernorm"),
    ],
)
def test_tensors_that_are_not_computed(tensor: str, named: str) -> None:
    with pytest.raises(UnsupportedModelError, match=named):
        record({}, tensor)


def test_a_setting_for_each_layer() -> None:
    from webllm.artifacts.gguf.packed_arrays import NumberArray

    record({"llama.attention.head_count_kv": NumberArray(b"\2\0\0\0" * 3, "i")})
    with pytest.raises(CheckpointError, match="num_key_value_heads must be a whole number"):
        record({"llama.attention.head_count_kv": NumberArray(b"\2\0\0\0\3\0\0\0", "i")})


def test_scaled_rotations() -> None:
    plain = record({}).rope
    linear = tuple(f / 4 for f in plain.inv_freq)
    for changes in (
        {"rope.scale_linear": 4.0},
        {"rope.scaling.factor": 4.0},
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    ):
        assert (
            record({f"llama.{key}": value for key, value in changes.items()}).rope.inv_freq
            == linear
        )
    off = {"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0}
    assert record(off).rope == plain
    assert record({"llama.rope.scaling.attn_factor": 1.5}).rope.scale == 1.5


def test_yarns_own_settings() -> None:
    yarn: dict[str, object] = {
        "llama.rope.scaling.type": "yarn",
        "llama.rope.scaling.factor": 4.0,
        "llama.rope.scaling.original_context_length": 32,
    }
    paper = record(yarn).rope
    assert paper.scale == pytest.approx(1.1386294)
    slow = record(yarn | {"llama.rope.scaling.yarn_beta_slow": 4.0}).rope
    assert slow.inv_freq != paper.inv_freq
    assert record(yarn | {"llama.rope.scaling.attn_factor": 2.0}).rope.scale == 2 * paper.scale
