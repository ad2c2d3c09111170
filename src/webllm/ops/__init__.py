"""The op vocabulary of model files, the recorder behind it and what a backend executes."""

from webllm.ops.graph import (
    Graph,
    Tensor,
    add,
    attention,
    embedding,
    gated,
    linear,
    rms_norm,
    rope,
    sample,
    take_outputs,
)
from webllm.ops.program import Activation, Heads
from webllm.ops.values import RopeTable, RowOrder, Weight

__all__ = [
    "Activation",
    "Graph",
    "Heads",
    "RopeTable",
    "RowOrder",
    "Tensor",
    "Weight",
    "add",
    "attention",
    "embedding",
    "gated",
    "linear",
    "rms_norm",
    "rope",
    "sample",
    "take_outputs",
]
