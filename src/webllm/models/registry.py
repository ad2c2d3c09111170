"""Finds the model file for a checkpoint by its `model_type`, and records its program."""

from __future__ import annotations

from typing import Protocol

from webllm.artifacts.checkpoint import Checkpoint
from webllm.errors import UnsupportedModelError
from webllm.models import gemma3, llama, qwen2, qwen3
from webllm.models.config import Config
from webllm.models.weights import NamedWeights
from webllm.ops import Graph, Tensor
from webllm.ops.fusion import fuse
from webllm.ops.program import Program


class ModelArgs(Protocol):
    """The fields that every model's `ModelArgs` has."""

    @property
    def max_positions(self) -> int: ...

    @property
    def vocab_size(self) -> int: ...


class Model(Protocol):
    """A model file's `Model`; calling it records its ops."""

    @property
    def args(self) -> ModelArgs: ...

    def __call__(self, graph: Graph) -> Tensor: ...


_FILES = {
    "llama": llama,
    "mistral": llama,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "gemma3_text": gemma3,
}


def trained_context(checkpoint: Checkpoint) -> int:
    """Returns the number of positions the model was trained for."""
    model_type(checkpoint)
    return Config(checkpoint.config).integer("max_position_embeddings")


def model_type(checkpoint: Checkpoint) -> str:
    """Returns the architecture's name; raises UnsupportedModelError if it has no model file."""
    name = checkpoint.config.get("model_type")
    if not isinstance(name, str) or name not in _FILES:
        known = ", ".join(_FILES)
        raise UnsupportedModelError(f"architecture {name!r} is not one of those we run: {known}")
    return name


def record(checkpoint: Checkpoint, max_positions: int) -> Program:
    """Records the program of a checkpoint, for contexts of up to `max_positions`.

    Raises UnsupportedModelError for an architecture that is not supported and for a setting or a
    tensor that its model file does not compute, CheckpointError for a tensor that is missing or has
    another shape.
    """
    file = _FILES[model_type(checkpoint)]
    config, weights = Config(checkpoint.config), NamedWeights(checkpoint)
    model: Model = file.Model(file.ModelArgs.from_config(config), weights, max_positions)
    config.refuse_unread()
    weights.refuse_unread()
    graph = Graph()
    model(graph)
    return fuse(graph)
