"""The sampling parameters of one sequence: how its tokens are drawn, and its logit edits.

docs/sampling.md states the rule that every backend follows. Both classes hold the very words
that a step carries (see `webllm.ops.step`).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field
from struct import Struct
from struct import error as StructError  # noqa: N812

from webllm.errors import RequestError

SAMPLING_WORDS = 12
EDIT_WORDS = 3
IN_PROMPT = 1 << 31
MAX_LOGPROBS = 20

_SAMPLING = Struct("=fffIIfffI")
_EDIT = Struct("=IfI")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one output row is drawn; see docs/sampling.md."""

    temperature: float = 0.0
    top_p: float = 1.0
    min_p: float = 0.0
    top_k: int = 0
    seed: int = 0  # 32 bits
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    num_logprobs: int | None = None  # None: none; 0: the drawn token's; n: the n likeliest too
    is_plain: bool = field(init=False, repr=False)  # no penalties and no logprobs: only draws
    packed: bytes = field(init=False, repr=False)  # the first words of its section of a step

    def __post_init__(self) -> None:
        if self.num_logprobs is not None and not 0 <= self.num_logprobs <= MAX_LOGPROBS:
            raise RequestError(
                f"{self.num_logprobs} logprobs were asked for, at most {MAX_LOGPROBS} are found",
                field="top_logprobs",
            )
        is_plain = (
            self.num_logprobs is None
            and self.repetition_penalty == 1.0
            and self.frequency_penalty == 0.0
            and self.presence_penalty == 0.0
        )
        object.__setattr__(self, "is_plain", is_plain)
        object.__setattr__(self, "packed", self._pack())

    def _pack(self) -> bytes:
        try:
            return _SAMPLING.pack(
                self.temperature,
                self.top_p,
                self.min_p,
                self.top_k,
                self.seed,
                self.repetition_penalty,
                self.frequency_penalty,
                self.presence_penalty,
                0 if self.num_logprobs is None else 1 + self.num_logprobs,
            )
        except (StructError, OverflowError, TypeError) as error:
            raise RequestError(f"{self} cannot be packed: {error}") from error


GREEDY = Sampling()


def edit(token_id: int, bias: float = 0.0, count: int = 0) -> array[int]:
    """One entry of `StepSequence.edits`; `count` may have IN_PROMPT set."""
    return array("I", _EDIT.pack(token_id, bias, count))


class LogitEdits:
    """The edits of one sequence as the words of its steps, kept up to date token by token.

    biases: by token id; prompt_ids: tokens that count for the repetition penalty from the start;
    counts: whether what is generated counts, for any penalty. Copies share memory until one counts.
    """

    def __init__(
        self,
        biases: Mapping[int, float] | None = None,
        prompt_ids: Iterable[int] = (),
        *,
        counts: bool = False,
    ) -> None:
        biases = biases or {}
        self.words = array("I", bytes(4 * EDIT_WORDS * len(biases)))  # token id, bias, count
        self.words[0::EDIT_WORDS] = array("I", biases)
        self.words[1::EDIT_WORDS] = array("I", array("f", biases.values()).tobytes())
        self.counts = counts
        self._at = dict(
            zip(biases, range(EDIT_WORDS - 1, len(self.words), EDIT_WORDS), strict=True)
        )
        for token_id in prompt_ids:
            if token_id in self._at:
                self.words[self._at[token_id]] |= IN_PROMPT
            else:
                self._at[token_id] = self._append(token_id, IN_PROMPT)
        self._generated: dict[int, int] = {}  # as `_at`, which copies share: word of the count
        self._is_shared = False

    def __len__(self) -> int:
        return len(self.words) // EDIT_WORDS

    def copy(self) -> LogitEdits:
        """The same for another choice of the request."""
        other = copy(self)
        other._generated = dict(self._generated)
        self._is_shared = other._is_shared = True
        return other

    def count(self, token_id: int) -> None:
        """A token was generated."""
        if not self.counts:
            return
        if self._is_shared:
            self.words, self._is_shared = self.words[:], False
        at = self._at.get(token_id) or self._generated.get(token_id)
        if at is not None:
            self.words[at] += 1
        else:
            self._generated[token_id] = self._append(token_id, 1)

    def _append(self, token_id: int, count: int) -> int:
        """An entry without a bias; returns the word of its count."""
        self.words.extend((token_id, 0, count))
        return len(self.words) - 1
