"""Looks up the rows of the embedding table."""

from __future__ import annotations

from webllm.backends.webgpu.device.protocol import Device, Dispatch, Slice
from webllm.backends.webgpu.kernels.matrix import Matrix, Shard, reader
from webllm.backends.webgpu.kernels.step_buffer import StepBuffer
from webllm.backends.webgpu.kernels.template import source

_THREADS = 32


def embed(
    device: Device, *, step: StepBuffer, sampled: Slice, table: Matrix, scale: float, out: Slice
) -> list[Dispatch]:
    """out[t] = scale * table[token], f32 [tokens, table.cols]; one dispatch for each shard.

    The token is token_ids[t], or sampled[o] where that is FROM_SAMPLED | o; sampled: u32 [outputs].
    """
    code = source("embed", reader=reader(table.format))

    def dispatch(shard: Shard) -> Dispatch:
        constants = {
            "NUM_TOKENS": step.tokens.word,
            "TOKEN_IDS": step.layout.token_ids,
            "FIRST_ROW": shard.first_row,
            "ROWS": shard.rows,
            "GROUPS": table.groups,
            "SCALE": scale,
        }
        return Dispatch(
            device.pipeline(code, constants, "embed", proven=True),
            (step.words, sampled, out, shard.quants, shard.scales),
            (-(-table.groups // _THREADS), step.max_tokens, 1),
            "embed",
        )

    return [dispatch(shard) for shard in table.shards]
