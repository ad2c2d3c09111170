"""A checkpoint's tensors under the names model files use, and their shapes checked."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

from webllm.artifacts.checkpoint import Checkpoint, GGMLType
from webllm.errors import CheckpointError
from webllm.ops import RowOrder, Weight


class Weights:
    """`names` maps a model file's names (Hugging Face's) to the checkpoint's."""

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
        """Raises CheckpointError if the tensor is missing or not [rows, cols] = shape."""
        return Weight.of(self._tensor(name, shape), *shape, order=order, head_dim=head_dim)

    def vector(
        self, name: str, size: int, order: RowOrder = RowOrder.AS_STORED, head_dim: int = 0
    ) -> Weight:
        return Weight.of(self._tensor(name, (size,)), size, order=order, head_dim=head_dim)

    def floats(self, name: str, size: int) -> array[float]:
        """The numbers of a small f32 tensor, for the host."""
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
    """Rows of the embedding table, one for each token of the file's vocabulary."""
    embedding = checkpoint.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise CheckpointError("the model file lacks a matrix token_embd.weight")
    num_rows, tokens = embedding.shape[0], checkpoint.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, Sequence) and len(tokens) != num_rows:
        raise CheckpointError(
            f"token_embd.weight has {num_rows} rows for a vocabulary of {len(tokens)} tokens"
        )
    return num_rows
