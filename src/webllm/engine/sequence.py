"""One sequence of tokens on its way through the engine."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from enum import Enum

from webllm.ops.step import Sampling


class FinishReason(Enum):
    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class SequenceParams:
    """How a sequence goes on and when it ends."""

    max_tokens: int
    stop_ids: frozenset[int]
    sampling: Sampling = field(default_factory=Sampling)
    biases: tuple[tuple[int, float], ...] = ()  # (token id, value)


@dataclass(eq=False, slots=True)
class Sequence:
    """`token_ids` holds what the host knows; tokens sampled in steps that are still under way on
    the device are counted by `num_pending` alone.
    """

    prompt_ids: Tokens[int]
    params: SequenceParams
    token_ids: list[int] = field(init=False)
    blocks: list[int] = field(default_factory=list)
    num_computed: int = 0  # positions whose KV is written or will be by a submitted step
    num_pending: int = 0
    finish_reason: FinishReason | None = None

    def __post_init__(self) -> None:
        self.token_ids = list(self.prompt_ids)

    @property
    def num_tokens(self) -> int:
        """All tokens, those still on the device included."""
        return len(self.token_ids) + self.num_pending

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.prompt_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - len(self.prompt_ids)

    @property
    def max_positions(self) -> int:
        """Positions of the KV cache it may come to fill: its last token's is never written."""
        return len(self.prompt_ids) + self.params.max_tokens - 1

    @property
    def is_prefilled(self) -> bool:
        return self.num_computed >= len(self.prompt_ids)

    @property
    def may_decode(self) -> bool:
        """False once the steps already submitted bring it to `max_tokens`."""
        return self.num_tokens < len(self.prompt_ids) + self.params.max_tokens
