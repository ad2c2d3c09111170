"""Draws one token per output row, by the rule of docs/sampling.md.

Four dispatches: the largest logit of each chunk of the vocabulary; the smallest logit that
top_k, top_p and min_p keep; each chunk's largest logit + noise; the largest of the chunks. Rows
of temperature 0 need only the first and the last, and leave the others at once. Two more, for steps
with anything to do for them, apply biases and penalties and find log-probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

from webllm.backends.webgpu.device.protocol import Device, Dispatch, Slice
from webllm.backends.webgpu.kernels.step_buffer import StepBuffer
from webllm.backends.webgpu.kernels.target import Target
from webllm.backends.webgpu.kernels.team import team
from webllm.backends.webgpu.kernels.template import snippet, source

_CHUNK = 2048  # tokens a team looks at
_CHUNK_SINGLE = 512


@dataclass(frozen=True, slots=True)
class SampleScratch:
    best: Slice  # [outputs, chunks] (value f32, id u32)
    threshold: Slice  # f32 [outputs], smallest logit kept
    sums: Slice  # f32 [outputs, chunks], of exp(logit - the chunk's largest)
    entered: Slice  # as best; the tournament of the likeliest tokens


def sample_scratch_bytes(target: Target, vocab: int, max_outputs: int) -> tuple[int, ...]:
    """Sizes of the slices of `SampleScratch`."""
    chunks = max_outputs * _num_chunks(target, vocab)
    return 8 * chunks, 4 * max_outputs, 4 * chunks, 8 * chunks


def sample(
    device: Device,
    target: Target,
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

    logits: f32 [outputs, vocab], left as edited; sampled: u32 [outputs], and from word
    `first_logprobs` on what `webllm.ops.sampled` says. is_plain: for steps without edits,
    penalties and logprobs.
    """
    chunks = _num_chunks(target, vocab)
    outputs = step.max_outputs

    def dispatch(name: str, groups: int, *bound: Slice) -> Dispatch:
        reduce, constants = team(target, _threads(device, target) if groups == 1 else 256)
        code = source(
            name,
            team=reduce,
            row=snippet("sample_row"),
            candidates=snippet(f"sample_candidates_{'team' if target.barriers else 'single'}"),
        )
        constants |= _constants(target, step, vocab, name)
        if name in ("sample_logprobs", "sample_pick"):
            constants["LOGPROBS"] = first_logprobs
        pipeline = device.pipeline(code, constants, name, proven=True)
        return Dispatch(pipeline, (step.words, *bound), (groups, outputs, 1), name)

    best, threshold, sums = scratch.best, scratch.threshold, scratch.sums
    edits, logprobs = [], []
    if not is_plain:
        edits = [dispatch("sample_edit", 1, logits, sampled)]
        logprobs = [dispatch("sample_logprobs", 1, logits, best, sums, scratch.entered, sampled)]
    return [
        *edits,
        dispatch("sample_max", chunks, logits, best, sums),
        dispatch("sample_threshold", 1, logits, best, threshold),
        *logprobs,  # `best` is the logits' own until sample_draw
        dispatch("sample_draw", chunks, logits, best, threshold),
        dispatch("sample_pick", 1, logits, best, sampled),
    ]


def _constants(target: Target, step: StepBuffer, vocab: int, name: str) -> dict[str, float]:
    layout = step.layout
    constants: dict[str, float] = {
        "HEADER": layout.header,
        "SAMPLING": layout.sampling,
        "VOCAB": vocab,
        "CHUNK": _CHUNK if target.barriers else _CHUNK_SINGLE,
    }
    if name == "sample_edit":
        constants |= {"OUTPUT_ROWS": layout.output_rows, "TOKEN_IDS": layout.token_ids}
    if name == "sample_threshold":
        constants["LANES"] = _CHUNK // 8 if target.barriers else 1
    if name == "sample_draw":
        constants |= {"OUTPUT_ROWS": layout.output_rows, "POSITIONS": layout.positions}
    return constants


def _threads(device: Device, target: Target) -> int:
    """Threads of the one workgroup that looks at a whole row."""
    return 1024 if target.subgroup and device.limits.max_workgroup_threads >= 1024 else 256


def _num_chunks(target: Target, vocab: int) -> int:
    return -(-vocab // (_CHUNK if target.barriers else _CHUNK_SINGLE))
