"""Everything that both backends share: from a model file's calls to the ops of one step.

    graph      the functions that a model file calls; each call records a node of a graph
    fusion     turns the finished graph into the few ops that a backend executes
    program    those ops in order: loaded and compiled once for each model
    values     what ops read and write: activations, weights, rotary tables
    checks     refuses a program or checkpoint that the kernels could not run safely
    vectors    reads norms and biases out of a checkpoint
    step       one batch, packed into the words that the kernels read
    sampling   the sampling parameters and logit edits of a sequence
    sampled    the tokens and logprobs that a step returns

This module exports the names that model files use.
"""

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
