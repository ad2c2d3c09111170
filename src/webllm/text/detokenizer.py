"""Turns token ids into text while they are generated."""

from __future__ import annotations

import codecs

from webllm.text.tokenizer import Tokenizer


class StreamingDetokenizer:
    """Turns one sequence of token ids into text, delta by delta.

    A token may end inside a character; its bytes then wait for the rest. All deltas and the `flush`
    together equal `tokenizer.decode` of all ids.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._at_start = True

    def push(self, token_id: int) -> str:
        """Returns the text that `token_id` completes, which may be empty."""
        data = self._bytes(token_id)
        if self._at_start and data:
            self._at_start = False
            if self._tokenizer.add_space_prefix:
                data = data.removeprefix(b" ")
        return self._utf8.decode(data)

    def flush(self) -> str:
        """Ends the text; returns U+FFFD for an incomplete character, else nothing."""
        return self._utf8.decode(b"", final=True)

    def _bytes(self, token_id: int) -> bytes:
        if self._skip_special or token_id not in self._tokenizer.special_ids:
            return self._tokenizer.token_bytes(token_id)
        return self._tokenizer.decode([token_id], skip_special=False).encode()
