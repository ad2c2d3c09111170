"""Looks up the rows of the embedding table."""

from __future__ import annotations

from webllm.backends.webgpu.device.protocol import Device, Dispatch, Slice
from webllm.backends.webgpu.kernels.quant.planar import reader
from webllm.backends.webgpu.kernels.repack import Matrix, Shard
from webllm.backends.webgpu.kernels.step_buffer import StepBuffer
from webllm.backends.webgpu.kernels.template import snippet, source

_THREADS = 32


def embed(
    device: Device, *, step: StepBuffer, sampled: Slice, table: Matrix, scale: float, out: Slice
) -> list[Dispatch]:
    """out[t] = scale * table[token], f32 [tokens, table.cols]; one dispatch a shard of the table.

    The token is token_ids[t], or sampled[o] where that is FROM_SAMPLED | o; sampled: u32 [outputs].
    """
    code = source(
        "embed",
        reader=reader(table.form),
        side="" if table.form.is_float else snippet("embed_side"),
    )

    def dispatch(shard: Shard) -> Dispatch:
        constants = {
            "NUM_TOKENS": step.tokens.word,
            "TOKEN_IDS": step.layout.token_ids,
            "FIRST_ROW": shard.first_row,
            "ROWS": shard.rows,
            "GROUPS": table.groups,
            "SCALE": scale,
        }
        planes = (shard.quants,) if table.form.is_float else (shard.quants, shard.side)
        return Dispatch(
            device.pipeline(code, constants, "embed", proven=True),
            (step.words, sampled, out, *planes),
            (-(-table.groups // _THREADS), step.max_tokens, 1),
            "embed",
        )

    return [dispatch(shard) for shard in table.shards]
