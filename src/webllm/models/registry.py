"""Which model file runs a checkpoint, by its `general.architecture`."""

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
    """The part of every model's arguments that the engine reads."""

    @property
    def max_positions(self) -> int: ...

    @property
    def vocab_size(self) -> int: ...


class Model(Protocol):
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
    """Positions the model was trained for."""
    return Metadata(checkpoint.metadata, architecture(checkpoint)).integer("context_length")


def architecture(checkpoint: Checkpoint) -> str:
    """Raises UnsupportedModelError for an architecture without a model file."""
    name = checkpoint.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in _MODELS:
        known = ", ".join(_MODELS)
        raise UnsupportedModelError(f"architecture {name!r} is not one of those we run: {known}")
    return name


def record(checkpoint: Checkpoint, max_positions: int) -> Program:
    """The program of a checkpoint for contexts of up to `max_positions`.

    Raises UnsupportedModelError, or CheckpointError if tensors are missing or misshapen.
    """
    model = _MODELS[architecture(checkpoint)](checkpoint, max_positions)
    graph = Graph()
    model(graph)
    return fuse(graph)
