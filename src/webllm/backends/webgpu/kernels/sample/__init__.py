"""Draws one token for each output row, by the rule of docs/sampling.md.

Four dispatches: the largest logit of each chunk of the vocabulary (`max`); the smallest logit that
top_k, top_p and min_p keep (`threshold`); each chunk's largest logit + noise (`draw`); the largest
of the chunks (`pick`). Rows of temperature 0 need only the first and the last, and leave the
others at once. Steps with logit edits, penalties or logprobs have two more dispatches: `edit`
applies the first two, `logprobs` finds the last.
"""

from __future__ import annotations

from dataclasses import dataclass

from webllm.backends.webgpu.device.protocol import Device, Dispatch, Slice
from webllm.backends.webgpu.kernels.reduction import reduction
from webllm.backends.webgpu.kernels.step_buffer import StepBuffer
from webllm.backends.webgpu.kernels.template import part, source
from webllm.backends.webgpu.kernels.variant import KernelVariant

_CHUNK = 2048  # tokens of a workgroup
_SCALAR_CHUNK = 512


@dataclass(frozen=True, slots=True)
class SampleScratch:
    best: Slice  # [outputs, chunks] (value f32, id u32)
    threshold: Slice  # f32 [outputs], smallest logit kept
    sums: Slice  # f32 [outputs, chunks], of exp(logit - the chunk's largest)
    entered: Slice  # as `best`: the tournament of the likeliest tokens


def sample_scratch_bytes(variant: KernelVariant, vocab: int, max_outputs: int) -> tuple[int, ...]:
    """Returns the sizes of the slices of `SampleScratch`."""
    chunks = max_outputs * _num_chunks(variant, vocab)
    return 8 * chunks, 4 * max_outputs, 4 * chunks, 8 * chunks


def sample(
    device: Device,
    variant: KernelVariant,
    *,
    step: StepBuffer,
    logits: Slice,
    vocab: int,
    scratch: SampleScratch,
    sampled: Slice,
    first_logprobs: int,
    is_plain: bool,
) -> list[Dispatch]:
    """sampled[o] = the token drawn from logits[o].

    logits: f32 [outputs, vocab], left as edited; sampled: u32 [outputs], followed from word
    `first_logprobs` on by logprobs in the layout of `webllm.ops.sampled`. is_plain: for steps
    without edits, penalties and logprobs.
    """
    chunks = _num_chunks(variant, vocab)
    row_threads = _row_threads(device, variant)

    def dispatch(name: str, groups: int, *bindings: Slice, **constants: float) -> Dispatch:
        reduce, shared = reduction(variant, row_threads if groups == 1 else 256)
        values = {"reduction": reduce, "row": part("sample/parts/row")}
        if name == "sample/threshold":
            values["candidates"] = part(_CANDIDATES[variant.barriers])
        pipeline = device.pipeline(
            source(name, **values),
            shared | _row_constants(variant, step, vocab) | constants,
            name,
            proven=True,
        )
        return Dispatch(pipeline, (step.words, *bindings), (groups, step.max_outputs, 1), name)

    layout = step.layout
    best, threshold, sums = scratch.best, scratch.threshold, scratch.sums
    edits, logprobs = [], []
    if not is_plain:
        edits = [
            dispatch(
                "sample/edit", 1, logits, sampled,
                OUTPUT_ROWS=layout.output_rows, TOKEN_IDS=layout.token_ids,
            )
        ]  # fmt: skip
        logprobs = [
            dispatch(
                "sample/logprobs", 1, logits, best, sums, scratch.entered, sampled,
                LOGPROBS=first_logprobs,
            )
        ]  # fmt: skip
    return [
        *edits,
        dispatch("sample/max", chunks, logits, best, sums),
        dispatch(
            "sample/threshold", 1, logits, best, threshold,
            LANES=_CHUNK // 8 if variant.barriers else 1,
        ),
        *logprobs,  # before `draw`, which overwrites `best`
        dispatch(
            "sample/draw", chunks, logits, best, threshold,
            OUTPUT_ROWS=layout.output_rows, POSITIONS=layout.positions,
        ),
        dispatch("sample/pick", 1, logits, best, sampled, LOGPROBS=first_logprobs),
    ]  # fmt: skip


_CANDIDATES = {  # by whether there are barriers
    True: "sample/threshold#candidates_workgroup",
    False: "sample/threshold#candidates_single",
}


def _row_constants(variant: KernelVariant, step: StepBuffer, vocab: int) -> dict[str, float]:
    """Constants of parts/row.wgsl."""
    return {
        "HEADER": step.layout.header,
        "SAMPLING": step.layout.sampling,
        "VOCAB": vocab,
        "CHUNK": _chunk(variant),
    }


def _row_threads(device: Device, variant: KernelVariant) -> int:
    """Threads of the one workgroup that looks at a whole row."""
    return 1024 if variant.subgroup and device.limits.max_workgroup_threads >= 1024 else 256


def _chunk(variant: KernelVariant) -> int:
    return _CHUNK if variant.barriers else _SCALAR_CHUNK


def _num_chunks(variant: KernelVariant, vocab: int) -> int:
    return -(-vocab // _chunk(variant))
