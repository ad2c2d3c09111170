"""One sequence of tokens on its way through the engine."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, replace
from enum import Enum
from struct import error as StructError  # noqa: N812

from webllm.engine.block_manager import NO_PREFIX
from webllm.errors import RequestError
from webllm.ops.sampling import LogitEdits, Sampling
from webllm.ops.step import MAX_EDITS


class FinishReason(Enum):
    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class ContextShift:
    """When `window_tokens` are full, the first `sink_tokens` and the newer half of the others
    stay, and the model reads them again (attention sinks: arXiv:2309.17453).
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
    """How a sequence goes on and when it ends."""

    max_tokens: int
    stop_ids: frozenset[int]
    sampling: Sampling = field(default_factory=Sampling)
    shift: ContextShift | None = None


@dataclass(eq=False, slots=True)
class Sequence:
    """`token_ids` holds what the host knows of the KV cache's tokens and the one after them;
    tokens sampled in steps that are still under way on the device are counted by `num_pending`.

    Until the first token comes, `token_ids` may be shared by the choices of a request.
    """

    token_ids: array[int]  # typecode "I"
    params: SequenceParams
    edits: LogitEdits = field(default_factory=LogitEdits)
    num_prompt_tokens: int = field(init=False)
    num_cached_tokens: int = 0  # of the prompt: their keys and values were there already
    num_output_tokens: int = 0
    num_computed: int = 0  # positions whose KV is written or will be by a submitted step
    num_pending: int = 0
    pending_output: tuple[int, int] | None = None  # step and output row that sample the newest
    blocks: array[int] = field(default_factory=lambda: array("I"))
    prefix: int = NO_PREFIX  # of the first `num_remembered` blocks
    num_remembered: int = 0
    finish_reason: FinishReason | None = None

    def __post_init__(self) -> None:
        self.num_prompt_tokens = len(self.token_ids)

    @property
    def num_tokens(self) -> int:
        """All tokens, those still on the device included."""
        return len(self.token_ids) + self.num_pending

    @property
    def num_uncomputed(self) -> int:
        return len(self.token_ids) + self.num_pending - self.num_computed

    @property
    def decodes(self) -> bool:
        """What is left to compute is a token that was sampled."""
        return self.num_uncomputed == 1 and self.num_output_tokens + self.num_pending > 0

    @property
    def reads_prompt(self) -> bool:
        return self.num_uncomputed > 0 and not self.decodes

    @property
    def max_positions(self) -> int:
        """Positions of the KV cache it may come to fill: its last token's is never written."""
        most = self.num_prompt_tokens + self.params.max_tokens - 1
        if self.params.shift:
            most = min(most, self.params.shift.window_tokens)
        return max(most, self.num_prompt_tokens)

    @property
    def needs_shift(self) -> bool:
        """The newest token has no position left in its window."""
        shift = self.params.shift
        return shift is not None and self.num_tokens > shift.window_tokens

    @property
    def is_all_sampled(self) -> bool:
        """The steps already submitted bring it to `max_tokens`."""
        return self.num_output_tokens + self.num_pending >= self.params.max_tokens

    def check(self) -> None:
        """Raises RequestError for what no step could be packed with."""
        if self.token_ids.typecode != "I":
            raise RequestError(f"token_ids is an array {self.token_ids.typecode!r}; give 'I'")
        if len(self.edits) > MAX_EDITS:
            raise RequestError(
                f"logit_bias and penalties concern {len(self.edits)} tokens, {MAX_EDITS} are "
                "allowed; give fewer biases or leave the penalties out",
                field="logit_bias",
            )
        try:
            self.params.sampling.pack()
        except (StructError, OverflowError, TypeError) as error:
            raise RequestError(f"{self.params.sampling} cannot be packed: {error}") from error

    def accept(self, token_id: int) -> None:
        """Takes the oldest pending token."""
        if not self.num_output_tokens:
            self.token_ids = self.token_ids[:]
        self.num_pending -= 1
        self.num_output_tokens += 1
        self.token_ids.append(token_id)
        self.edits.count(token_id)

    def shift(self) -> None:
        """Drops what its window has no room for; positions begin anew, and so must the draws."""
        assert self.params.shift is not None
        self.token_ids = self.params.shift.shifted(self.token_ids)
        sampling = self.params.sampling
        seed = (sampling.seed * 747796405 + 2891336453) & 0xFFFFFFFF
        self.params = replace(self.params, sampling=replace(sampling, seed=seed))
