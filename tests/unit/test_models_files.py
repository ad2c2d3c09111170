"""Damaged and hostile model files raise typed errors."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import cast

import pytest

from webllm.artifacts.checkpoint import Checkpoint
from webllm.artifacts.gguf.config import config_from_metadata
from webllm.artifacts.gguf.names import hugging_face_name
from webllm.errors import CheckpointError, UnsupportedModelError
from webllm.models import registry
from webllm.models.config import Config
from webllm.models.rope import RopeScaling, frequencies


def checkpoint(config: Mapping[str, object]) -> Checkpoint:
    return cast(Checkpoint, SimpleNamespace(config=config, tensors={}))


@pytest.mark.parametrize("architecture", [None, "rwkv", 3, ["llama"]])
def test_an_architecture_nobody_runs(architecture: object) -> None:
    with pytest.raises(UnsupportedModelError, match="is not one of those we run"):
        registry.model_type(checkpoint({"model_type": architecture}))


def test_tensors_with_odd_names_keep_them() -> None:
    names = ["blk.0.weight", "blk.", "blk.3.attn_q.weight", "weight", ""]
    assert [hugging_face_name(name, "llama") for name in names] == [
        "blk.0.weight",
        "blk.",
        "model.layers.3.self_attn.q_proj.weight",
        "weight",
        "",
    ]


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan"), "1", True])
def test_numbers_are_positive_and_finite(value: object) -> None:
    with pytest.raises(CheckpointError, match="rope_theta must be a positive number"):
        Config({"rope_theta": value}).number("rope_theta")


def test_rotations_that_cannot_be_computed() -> None:
    with pytest.raises(CheckpointError, match="rotary base must be above 1"):
        frequencies(64, 1.0, RopeScaling("yarn", 4.0, 4096))
    with pytest.raises(CheckpointError, match="rope_freqs"):
        frequencies(4, 1e4, RopeScaling(), [1.0, 0.0])
    metadata = {
        "general.architecture": "llama",
        "llama.rope.scaling.type": "yarn",
        "llama.rope.scaling.factor": 1e9,
        "llama.context_length": 4096,
    }
    scaling = RopeScaling.of(Config(config_from_metadata(metadata)))
    assert len(frequencies(64, 1e4, scaling).inv_freq) == 32
