"""Stop strings in streamed text."""

from collections.abc import Sequence

from webllm.errors import RequestError


class StopMatcher:
    """Passes text on until one of the `stop` strings has come.

    Text that might be the start of a stop string waits, no more than that. How the text is cut
    into deltas makes no difference: the stop string that is complete first counts, and of several
    that end at the same character the longest.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        if "" in stop:
            raise RequestError("a stop string is empty; leave it out", field="stop")
        self._stop = tuple(stop)
        self._longest = max(map(len, self._stop), default=0)
        self._held = ""
        self._matched = False

    def feed(self, delta: str) -> tuple[str, bool]:
        """The text that may be shown now, and whether a stop string has come. The stop string
        itself and everything after it are dropped."""
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
        """The held text, when the generation ends without a stop string."""
        text, self._held = self._held, ""
        return text

    def _num_held(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        for length in range(min(len(text), self._longest - 1), 0, -1):
            end = text[-length:]
            if any(s.startswith(end) for s in self._stop):
                return length
        return 0
