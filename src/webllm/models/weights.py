"""Finds a checkpoint's tensors by the names that model files use, and checks their shapes."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

from webllm.artifacts.checkpoint import Checkpoint, GGMLType
from webllm.errors import CheckpointError
from webllm.ops import RowOrder, Weight


class NamedWeights:
    """The weights of a checkpoint by Hugging Face name; `names` maps those to the checkpoint's.

    Every method raises CheckpointError if the tensor is missing or has another shape.
    """

    def __init__(self, checkpoint: Checkpoint, names: Mapping[str, str]) -> None:
        self.checkpoint = checkpoint
        self.names = names

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def matrix(
        self,
        name: str,
        shape: tuple[int, int],
        order: RowOrder = RowOrder.AS_STORED,
        head_dim: int = 0,
    ) -> Weight:
        """Returns a matrix of `shape` [rows, cols]."""
        return Weight.of(self._tensor(name, shape), *shape, order=order, head_dim=head_dim)

    def vector(
        self, name: str, size: int, order: RowOrder = RowOrder.AS_STORED, head_dim: int = 0
    ) -> Weight:
        """Returns a vector of `size` elements."""
        return Weight.of(self._tensor(name, (size,)), size, order=order, head_dim=head_dim)

    def floats(self, name: str, size: int) -> array[float]:
        """Returns the numbers of a small tensor; raises CheckpointError if it is not F32."""
        tensor = self._tensor(name, (size,))
        if self.checkpoint.tensors[tensor].dtype is not GGMLType.F32:
            raise CheckpointError(f"tensor {tensor} must be F32")
        return array("f", bytes(self.checkpoint.data(tensor)))

    def _tensor(self, name: str, shape: tuple[int, ...]) -> str:
        tensor = self.names.get(name)
        if tensor is None:
            raise CheckpointError(f"the model file lacks the tensor {name}")
        found = self.checkpoint.tensors[tensor].shape
        if found != shape:
            raise CheckpointError(f"tensor {tensor} has shape {found}, its model wants {shape}")
        return tensor


def vocab_size(checkpoint: Checkpoint) -> int:
    """Returns the rows of the embedding table.

    Raises CheckpointError if a GGUF file lacks it, or has a vocabulary of another size.
    """
    embedding = checkpoint.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise CheckpointError("the model file lacks a matrix token_embd.weight")
    num_rows, tokens = embedding.shape[0], checkpoint.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, Sequence) and len(tokens) != num_rows:
        raise CheckpointError(
            f"token_embd.weight has {num_rows} rows for a vocabulary of {len(tokens)} tokens"
        )
    return num_rows
