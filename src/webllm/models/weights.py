"""Finds a checkpoint's tensors by the names that model files use, and checks their shapes."""

from __future__ import annotations

from array import array

from webllm.artifacts.checkpoint import Checkpoint, StorageType
from webllm.errors import CheckpointError, UnsupportedModelError
from webllm.ops import RowOrder, Weight

# Buffers that some checkpoints store although they are computed.
_NO_EFFECT = ("rotary_emb.inv_freq",)


class NamedWeights:
    """The weights of a checkpoint by Hugging Face's names.

    Every method raises CheckpointError if the tensor is missing or has another shape.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._unread = {name for name in checkpoint.tensors if not name.endswith(_NO_EFFECT)}

    def __contains__(self, name: str) -> bool:
        return name in self._checkpoint.tensors

    def matrix(self, name: str, shape: tuple[int, int], rotary: int = 0) -> Weight:
        """Returns a matrix of `shape` [rows, cols].

        rotary: the head_dim of a projection that is rotated. Its rows come in rotary pairs.
        """
        return Weight.of(name, *shape, *self._order(name, shape, rotary))

    def vector(self, name: str, size: int, rotary: int = 0) -> Weight:
        """Returns a vector of `size` elements; rotary: see `matrix`."""
        return Weight.of(name, size, 1, *self._order(name, (size,), rotary))

    def floats(self, name: str, size: int) -> array[float]:
        """Returns the numbers of a small tensor; raises CheckpointError if it is not F32."""
        self._check(name, (size,))
        if self._checkpoint.tensors[name].dtype is not StorageType.F32:
            raise CheckpointError(f"tensor {name} must be F32")
        return array("f", bytes(self._checkpoint.data(name)))

    def skip(self, name: str) -> None:
        """Leaves a tensor unread that has no effect."""
        self._unread.discard(name)

    def refuse_unread(self) -> None:
        """Raises UnsupportedModelError if the checkpoint has tensors that were not asked for."""
        if self._unread:
            name = min(self._unread)
            experts = " (a mixture of experts)" if "exp" in name else ""
            others = f" and {len(self._unread) - 1} others" if len(self._unread) > 1 else ""
            raise UnsupportedModelError(
                f"the model has the tensor {name}{experts}{others}, which webllm does not compute "
                "for this architecture"
            )

    def _order(self, name: str, shape: tuple[int, ...], rotary: int) -> tuple[RowOrder, int]:
        self._check(name, shape)
        if rotary and not self._checkpoint.tensors[name].is_paired:
            return RowOrder.HALVES_TO_PAIRS, rotary
        return RowOrder.AS_STORED, 0

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        self._unread.discard(name)
        tensor = self._checkpoint.tensors.get(name)
        if tensor is None:
            raise CheckpointError(f"the model file lacks the tensor {name}")
        if tensor.shape != shape:
            raise CheckpointError(
                f"tensor {name} has shape {tensor.shape}, its model wants {shape}"
            )
