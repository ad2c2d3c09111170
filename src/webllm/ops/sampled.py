"""The results of a step: sampled tokens and logprobs, read from one array of 32-bit words.

Both backends write this layout (O = outputs of the largest batch):

    token_ids      O
    logprobs       O x 41   for each output that asks for them: the drawn token's logprob f32; ids
                            of the 20 likeliest tokens (NO_TOKEN where there are fewer); their
                            logprobs f32
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from webllm.errors import DeviceError
from webllm.ops.sampling import MAX_LOGPROBS
from webllm.ops.step import Step

NO_TOKEN = 0xFFFFFFFF
_ROW_WORDS = 1 + 2 * MAX_LOGPROBS

Logits = bytes | bytearray | memoryview  # f32 [vocab]


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Logprobs of one output by the distribution before temperature, top-k, top-p and min-p."""

    logprob: float  # of the drawn token
    top: tuple[tuple[int, float], ...]  # (token id, logprob), likeliest first, none masked


@dataclass(frozen=True, slots=True)
class Sampled:
    """The tokens that a step sampled, one for each output."""

    token_ids: Sequence[int]
    logprobs: Sequence[TokenLogprobs | None]  # None for an output that asks for none


def joined_logits(logits: Sequence[Logits], num_outputs: int, vocab_size: int) -> bytes:
    """Joins rows of logits to f32 [num_outputs, vocab_size]; raises DeviceError for other sizes."""
    data = b"".join(logits)
    if any(len(data) != 4 * vocab_size * num for num in (num_outputs, len(logits))):
        raise DeviceError(
            f"{len(logits)} rows of logits in {len(data)} bytes; expected {num_outputs} of "
            f"{vocab_size} floats"
        )
    return data


@dataclass(frozen=True, slots=True)
class SampledLayout:
    """Reads the array above."""

    max_outputs: int

    @property
    def logprobs(self) -> int:
        """Word offset of the section."""
        return self.max_outputs

    def num_bytes(self, num_outputs: int) -> int:
        """Bytes up to the end of the logprobs of `num_outputs` outputs."""
        return 4 * (self.max_outputs + _ROW_WORDS * num_outputs)

    def read(self, data: bytes | memoryview, step: Step) -> Sampled:
        """Returns the results of `step`; without logprobs, `data` may end after the token ids."""
        words = memoryview(data).cast("I")
        num_logprobs = [s.sampling.num_logprobs for s in step.sequences for _ in s.outputs]
        return Sampled(
            words[: len(num_logprobs)].tolist(),
            [
                None if count is None else self._logprobs(words, output, count)
                for output, count in enumerate(num_logprobs)
            ],
        )

    def _logprobs(self, words: memoryview[int], output: int, count: int) -> TokenLogprobs:
        first = self.logprobs + _ROW_WORDS * output
        row = words[first : first + _ROW_WORDS]
        floats = row.cast("B").cast("f")
        likeliest = zip(row[1 : 1 + count], floats[1 + MAX_LOGPROBS :], strict=False)
        top = tuple(each for each in likeliest if each[0] != NO_TOKEN and each[1] > -inf)
        return TokenLogprobs(floats[0], top)
