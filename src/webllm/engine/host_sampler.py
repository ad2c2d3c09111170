"""Sampling with a `LogitProcessor`: Python changes the logits before the device draws tokens."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from webllm.backends.protocol import Executable
from webllm.config import LogitProcessor
from webllm.errors import LogitProcessorError
from webllm.ops.sampled import Sampled
from webllm.ops.step import Step


@dataclass(frozen=True, slots=True)
class StepResult:
    """The tokens of a step. The token of an output in `errors` is invalid: its processor raised."""

    sampled: Sampled
    errors: Mapping[int, LogitProcessorError] = field(default_factory=dict)


class HostSampler:
    """Reads logits back, lets the processor change them, and has the device draw from them.

    A processor that raises for one output fails that output alone.
    """

    def __init__(self, processor: LogitProcessor, vocab_size: int) -> None:
        self._processor = processor
        self._vocab_size = vocab_size

    async def resample(self, executable: Executable, step: Step) -> StepResult:
        """Draws the tokens of a step whose logits `executable` has just computed."""
        logits = (await executable.logits()).cast("B").cast("f")
        size = self._vocab_size
        rows: list[memoryview] = []
        errors: dict[int, LogitProcessorError] = {}
        for output in range(step.num_outputs):
            row = array("f", logits[output * size : (output + 1) * size])
            try:
                row = self._processed(row)
            except LogitProcessorError as error:
                errors[output] = error
                row = array("f", logits[output * size : (output + 1) * size])
            rows.append(memoryview(row))
        executable.resample(step, rows)
        sampled = await executable.sampled()
        for output, token_id in enumerate(sampled.token_ids):
            if output in errors:
                continue
            try:
                self._processor.process_sampled_token(token_id)
            except Exception as error:
                errors[output] = self._error("process_sampled_token", error)
        return StepResult(sampled, errors)

    def reset_state(self) -> None:
        """Tells the processor that a conversation begins. Raises LogitProcessorError."""
        try:
            self._processor.reset_state()
        except Exception as error:
            raise self._error("reset_state", error) from error

    def replay(self, choices: Sequence[Sequence[int]]) -> None:
        """Tells the processor tokens that were sampled before, step by step of all choices.

        Raises LogitProcessorError.
        """
        try:
            for step in zip_longest(*choices):
                for token_id in step:
                    if token_id is not None:
                        self._processor.process_sampled_token(token_id)
        except Exception as error:
            raise self._error("process_sampled_token", error) from error

    def _processed(self, logits: array[float]) -> array[float]:
        try:
            returned: MutableSequence[float] = self._processor.process_logits(logits)
            processed = returned if isinstance(returned, array) else array("f", returned)
        except Exception as error:
            raise self._error("process_logits", error) from error
        if len(processed) != self._vocab_size or processed.typecode != "f":
            raise self._error(
                "process_logits",
                f"it returned {len(processed)} values of type {processed.typecode!r}, expected "
                f"{self._vocab_size} of type 'f'",
            )
        return processed

    def _error(self, method: str, problem: str | Exception) -> LogitProcessorError:
        name = type(self._processor).__name__
        said = problem if isinstance(problem, str) else repr(problem)
        error = LogitProcessorError(f"{name}.{method} failed: {said}; mend the processor")
        error.__cause__ = problem if isinstance(problem, Exception) else None
        return error
