"""The sampling parameters of one sequence, and its logit edits.

docs/sampling.md states the rule by which every backend draws a token. Both classes produce the
words that a step carries to the device (see the layout in `webllm.ops.step`).
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
IN_PROMPT = 1 << 31  # flag in an edit's count: the token occurs in the prompt
MAX_LOGPROBS = 20

_SAMPLING = Struct("=fffIIfffI")
_EDIT = Struct("=IfI")


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """The parameters by which a sequence's tokens are drawn; see docs/sampling.md.

    Raises RequestError for more logprobs than MAX_LOGPROBS, and for a number that its word in the
    step cannot hold.
    """

    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0  # 1: off
    min_p: float = 0.0  # 0: off
    top_k: int = 0  # 0: off
    seed: int = 0  # 32 bits
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    num_logprobs: int | None = None  # 0: of the drawn token; n: of the n likeliest as well
    is_plain: bool = field(init=False, repr=False, compare=False)  # no penalties, no logprobs
    packed: bytes = field(init=False, repr=False, compare=False)  # up to `first_edit` of a step

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


GREEDY = SamplingParams()


def edit(token_id: int, bias: float = 0.0, count: int = 0) -> array[int]:
    """Returns one entry of `StepSequence.edits`.

    bias: added to the token's logit. count: how often the token was generated, with IN_PROMPT set
    if the prompt has it; both matter for penalties only.
    """
    return array("I", _EDIT.pack(token_id, bias, count))


class LogitEdits:
    """The logit edits of one sequence, as words of a step; updated with each generated token.

    biases: by token id. prompt_ids: tokens that the repetition penalty applies to from the start.
    counts: whether generated tokens are counted, which penalties need. Copies share memory until
    one of them counts a token.
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
        self._at = dict(  # token id -> index of the word that holds its count
            zip(biases, range(EDIT_WORDS - 1, len(self.words), EDIT_WORDS), strict=True)
        )
        for token_id in prompt_ids:
            if token_id in self._at:
                self.words[self._at[token_id]] |= IN_PROMPT
            else:
                self._at[token_id] = self._append(token_id, IN_PROMPT)
        self._generated: dict[int, int] = {}  # like `_at`, but not shared by copies
        self._is_shared = False

    def __len__(self) -> int:
        return len(self.words) // EDIT_WORDS

    def copy(self) -> LogitEdits:
        """Returns the edits for another choice of the same request."""
        other = copy(self)
        other._generated = dict(self._generated)
        self._is_shared = other._is_shared = True
        return other

    def count(self, token_id: int) -> None:
        """Counts a generated token."""
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
        """Adds an entry without a bias; returns the index of its count."""
        self.words.extend((token_id, 0, count))
        return len(self.words) - 1
