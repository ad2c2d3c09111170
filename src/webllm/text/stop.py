"""Finds stop strings in streamed text."""

from __future__ import annotations

from collections.abc import Sequence

from webllm.errors import RequestError


class StopMatcher:
    """Passes text on until a stop string occurs.

    Only text that may be the beginning of a stop string is held back. The result does not depend on
    how the text is cut into deltas: the stop string that is complete first wins, the longest of
    those that end at the same character. Raises RequestError if a stop string is empty.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        if "" in stop:
            raise RequestError("a stop string is empty; leave it out", field="stop")
        self._stop = tuple(stop)
        self._longest = max(map(len, self._stop), default=0)
        self._held = ""
        self._matched = False

    def feed(self, delta: str) -> tuple[str, bool]:
        """Returns the text that may be shown now, and whether a stop string has occurred.

        The stop string and everything after it are dropped.
        """
        if self._matched:
            return "", True
        if not self._stop:
            return delta, False
        text = self._held + delta
        ends = [(at + len(s), at) for s in self._stop if (at := text.find(s)) >= 0]
        if ends:
            self._held, self._matched = "", True
            return text[: min(ends)[1]], True
        keep = self._num_held(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def flush(self) -> str:
        """Returns the held text; call it when the generation ends without a stop string."""
        text, self._held = self._held, ""
        return text

    def _num_held(self, text: str) -> int:
        """The length of the longest suffix of `text` that begins a stop string."""
        for length in range(min(len(text), self._longest - 1), 0, -1):
            end = text[-length:]
            if any(s.startswith(end) for s in self._stop):
                return length
        return 0
