"""Python's hand in sampling: a model's `LogitProcessor` between its logits and the draw."""

from __future__ import annotations

from array import array
from collections.abc import MutableSequence

from webllm.config import LogitProcessor
from webllm.errors import LogitProcessorError
from webllm.ops.backend import Executable, Sampled
from webllm.ops.step import Step


class HostSampler:
    """Reads logits back, lets the processor change them and has the device draw from those."""

    def __init__(self, processor: LogitProcessor, vocab_size: int) -> None:
        self._processor = processor
        self._vocab_size = vocab_size

    async def resample(self, executable: Executable, step: Step) -> Sampled:
        """Draws `step`'s tokens, whose logits `executable` has just computed.

        Raises LogitProcessorError.
        """
        logits = (await executable.logits()).cast("B").cast("f")
        size = self._vocab_size
        rows = [
            self._processed(array("f", logits[output * size : (output + 1) * size]))
            for output in range(step.num_outputs)
        ]
        executable.resample(step, [memoryview(row) for row in rows])
        sampled = await executable.sampled()
        for token_id in sampled.token_ids:
            try:
                self._processor.process_sampled_token(token_id)
            except Exception as error:
                raise self._error("process_sampled_token", repr(error)) from error
        return sampled

    def reset_state(self) -> None:
        """Raises LogitProcessorError."""
        try:
            self._processor.reset_state()
        except Exception as error:
            raise self._error("reset_state", repr(error)) from error

    def _processed(self, logits: array[float]) -> array[float]:
        try:
            returned: MutableSequence[float] = self._processor.process_logits(logits)
            processed = returned if isinstance(returned, array) else array("f", returned)
        except Exception as error:
            raise self._error("process_logits", repr(error)) from error
        if len(processed) != self._vocab_size or processed.typecode != "f":
            raise self._error(
                "process_logits",
                f"it returned {len(processed)} values of type {processed.typecode!r}, wanted are "
                f"{self._vocab_size} of type 'f'",
            )
        return processed

    def _error(self, method: str, problem: str) -> LogitProcessorError:
        name = type(self._processor).__name__
        return LogitProcessorError(f"{name}.{method} failed: {problem}; mend the processor")
