"""Finds the model file for a checkpoint by its `general.architecture`, and records its program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from webllm.artifacts.checkpoint import Checkpoint
from webllm.errors import UnsupportedModelError
from webllm.models import gemma3, llama, qwen2, qwen3
from webllm.models.metadata import Metadata
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


_MODELS: dict[str, Callable[[Checkpoint, int], Model]] = {
    "llama": llama.Model,
    "qwen2": qwen2.Model,
    "qwen3": qwen3.Model,
    "gemma3": gemma3.Model,
}


def trained_context(checkpoint: Checkpoint) -> int:
    """Returns the number of positions the model was trained for."""
    return Metadata(checkpoint.metadata, architecture(checkpoint)).integer("context_length")


def architecture(checkpoint: Checkpoint) -> str:
    """Returns the architecture's name; raises UnsupportedModelError if it has no model file."""
    name = checkpoint.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in _MODELS:
        known = ", ".join(_MODELS)
        raise UnsupportedModelError(f"architecture {name!r} is not one of those we run: {known}")
    return name


def record(checkpoint: Checkpoint, max_positions: int) -> Program:
    """Records the program of a checkpoint, for contexts of up to `max_positions`.

    Raises UnsupportedModelError for an architecture that is not supported, CheckpointError for a
    tensor that is missing or has another shape.
    """
    model = _MODELS[architecture(checkpoint)](checkpoint, max_positions)
    graph = Graph()
    model(graph)
    return fuse(graph)
