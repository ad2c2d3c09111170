"""One sequence of tokens on its way through the engine."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from webllm.api.chat_completion import FinishReason
from webllm.engine.block_manager import NO_PREFIX
from webllm.errors import RequestError
from webllm.ops.sampling import LogitEdits, SamplingParams
from webllm.ops.step import MAX_EDITS


@dataclass(frozen=True, slots=True)
class ContextShift:
    """The rule for a full context window: attention sinks, arXiv:2309.17453.

    Once a sequence has more than `window_tokens`, it keeps the first `sink_tokens` and the newer
    half of the others. The model then computes these again, at new positions.
    """

    window_tokens: int
    sink_tokens: int

    @property
    def num_newest(self) -> int:
        return max((self.window_tokens - self.sink_tokens) // 2, 1)

    def shifted(self, token_ids: array[int]) -> array[int]:
        return token_ids[: self.sink_tokens] + token_ids[-self.num_newest :]


@dataclass(frozen=True, slots=True)
class SequenceParams:
    """The parameters by which a sequence is sampled and ends."""

    max_tokens: int
    stop_ids: frozenset[int]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    shift: ContextShift | None = None


@dataclass(frozen=True, slots=True)
class Prefill:
    """The part of a prompt that is in the KV cache after a step."""

    sequence: Sequence
    num_cached_tokens: int
    num_computed_tokens: int  # including cached ones


@dataclass(eq=False, slots=True)
class Sequence:
    """A prompt and the tokens sampled after it.

    `token_ids` holds the tokens that the host knows. Those sampled by steps that are still in
    flight are known to the device alone; `num_pending` counts them. Until the first token comes,
    `token_ids` may be shared by the choices of a request.

    Prefill computes a prompt's tokens, all at once; decoding computes generated ones, one after
    another. On some devices these round differently. So a token that is computed once more, after
    a preemption or in another process, has to be computed in the same way.

    Raises RequestError for values that no step can hold.
    """

    token_ids: array[int]  # typecode "I"
    params: SequenceParams
    edits: LogitEdits = field(default_factory=LogitEdits)
    num_prompt_tokens: int = field(init=False)
    num_prefill_tokens: int = field(init=False)  # the first ones, which prefill computes
    num_tokens: int = field(init=False)  # including pending ones
    window_tokens: int = field(init=False)  # with more tokens, the context shifts
    num_cached_tokens: int = 0  # prompt tokens found in the prefix cache
    num_output_tokens: int = 0
    num_computed_tokens: int = 0  # their KV is written, or will be by a submitted step
    num_pending: int = 0  # sampled tokens that only the device knows
    pending_output: tuple[int, int] | None = None  # of the newest one: sampling step, output in it
    is_prefill: bool = True  # False: only generated tokens are left to compute
    block_table: array[int] = field(default_factory=lambda: array("I"))
    prefix_id: int = NO_PREFIX  # of the first `num_inserted_blocks` blocks
    num_inserted_blocks: int = 0  # in the prefix cache
    finish_reason: FinishReason | None = None
    on_prefill: Callable[[Prefill], None] | None = None  # called after each step of the prompt

    def __post_init__(self) -> None:
        self.num_prompt_tokens = self.num_prefill_tokens = self.num_tokens = len(self.token_ids)
        shift = self.params.shift
        self.window_tokens = sys.maxsize if shift is None else shift.window_tokens
        if self.token_ids.typecode != "I":
            raise RequestError(f"token_ids is an array {self.token_ids.typecode!r}; give 'I'")
        if len(self.edits) > MAX_EDITS:
            raise RequestError(
                f"logit_bias and penalties concern {len(self.edits)} tokens, {MAX_EDITS} are "
                "allowed; give fewer biases or leave the penalties out",
                field="logit_bias",
            )

    @property
    def max_positions(self) -> int:
        """The most positions of the KV cache that it fills; the last token is never computed."""
        most = self.num_prompt_tokens + self.params.max_tokens - 1
        return max(min(most, self.window_tokens), self.num_prompt_tokens)

    def replay(self, output_ids: Iterable[int]) -> None:
        """Appends the tokens that another sequence with the same prompt and parameters generated.

        This sequence then generates what would have followed, at least one token. Call it before
        the first step.
        """
        for token_id in output_ids:
            self.num_tokens += 1
            self.num_pending += 1
            self.accept(token_id)
            if self.num_tokens > self.window_tokens:
                self.shift()
        assert self.num_output_tokens < self.params.max_tokens, "nothing is left to generate"

    def accept(self, token_id: int) -> None:
        """Appends the oldest pending token, which the host has now read."""
        if not self.num_output_tokens:
            self.token_ids = self.token_ids[:]
        self.num_pending -= 1
        self.num_output_tokens += 1
        self.token_ids.append(token_id)
        if self.edits.counts:
            self.edits.count(token_id)

    def shift(self) -> None:
        """Drops tokens of a full window. Positions start over, so that the seed must change."""
        assert self.params.shift is not None
        self.token_ids = self.params.shift.shifted(self.token_ids)
        self.num_tokens = self.num_prefill_tokens = len(self.token_ids)
        sampling = self.params.sampling
        seed = (sampling.seed * 747796405 + 2891336453) & 0xFFFFFFFF
        self.params = replace(self.params, sampling=replace(sampling, seed=seed))
