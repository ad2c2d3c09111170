"""What sampling leaves on a device: one array of 32-bit words, O = the largest batch's outputs.

token_ids      O
logprobs       O x 41   where asked for: the drawn token's logprob f32; ids of the 20 likeliest
                        tokens (NO_TOKEN behind the last); their logprobs f32
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
    """Of one drawn token, by the distribution before temperature and truncation."""

    logprob: float
    top: tuple[tuple[int, float], ...]  # (token id, logprob), likeliest first, masked ones left out


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a step sampled, by output."""

    token_ids: Sequence[int]
    logprobs: Sequence[TokenLogprobs | None]  # None where not asked for


def joined_logits(logits: Sequence[Logits], num_outputs: int, vocab_size: int) -> bytes:
    """One row behind the other; DeviceError if they are not [num_outputs, vocab_size]."""
    data = b"".join(logits)
    if any(len(data) != 4 * vocab_size * num for num in (num_outputs, len(logits))):
        raise DeviceError(
            f"{len(logits)} rows of logits in {len(data)} bytes; wanted are {num_outputs} of "
            f"{vocab_size} floats"
        )
    return data


@dataclass(frozen=True, slots=True)
class SampledLayout:
    max_outputs: int

    @property
    def logprobs(self) -> int:
        """First word of the section."""
        return self.max_outputs

    def num_bytes(self, num_outputs: int) -> int:
        """Up to the logprobs of so many outputs."""
        return 4 * (self.max_outputs + _ROW_WORDS * num_outputs)

    def read(self, data: bytes | memoryview, step: Step) -> Sampled:
        """What `step` sampled. Without logprobs asked for, `data` may end after the token ids."""
        words = memoryview(data).cast("I")
        asked = [s.sampling.num_logprobs for s in step.sequences for _ in s.outputs]
        return Sampled(
            words[: len(asked)].tolist(),
            [
                None if count is None else self._logprobs(words, output, count)
                for output, count in enumerate(asked)
            ],
        )

    def _logprobs(self, words: memoryview[int], output: int, count: int) -> TokenLogprobs:
        first = self.logprobs + _ROW_WORDS * output
        row = words[first : first + _ROW_WORDS]
        floats = row.cast("B").cast("f")
        likeliest = zip(row[1 : 1 + count], floats[1 + MAX_LOGPROBS :], strict=False)
        top = tuple(each for each in likeliest if each[0] != NO_TOKEN and each[1] > -inf)
        return TokenLogprobs(floats[0], top)
