"""The only module that imports the `tokenizers` library, which a browser does not have.

A `tokenizer.json` document goes in; after that, only text and token ids cross this boundary.
"""

from __future__ import annotations

import ctypes
import sys
from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING

from webllm.errors import CheckpointError, UnsupportedModelError
from webllm.text.special_tokens import GUARD, SpecialTokens, with_guards
from webllm.text.steps import Steps
from webllm.text.tokenizer import Encoder

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

_LONG_CHARS = 10_000  # longer texts are encoded without the GIL


class LibraryEncoder:
    """An `Encoder` that uses a `tokenizers.Tokenizer`."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._lock = Lock()
        added = library.get_added_tokens_decoder().items()
        self._special = SpecialTokens({token.content: i for i, token in added if token.special})

    def guard(self, text: str) -> Steps[str]:
        return with_guards(text, self._special.starts(text))

    def encode(self, text: str, *, parse_special: bool, add_special: bool) -> Steps[list[int]]:
        yield
        if not self._special:
            return self._encode(text, add_special)
        if parse_special and GUARD in text:
            return (yield from self._encode_guarded(text))
        # The switch belongs to the library's object, not to the call: threads must take turns.
        with self._lock:
            self._library.encode_special_tokens = not parse_special
            return self._encode(text, add_special)

    def _encode_guarded(self, text: str) -> Steps[list[int]]:
        """Encodes a prompt piece by piece, because the library does not know guards."""
        token_ids: list[int] = []
        for part in self._special.split(text):
            yield
            if isinstance(part, int):
                token_ids.append(part)
            elif part is not None:
                plain = part.replace(GUARD, "")
                token_ids += yield from self.encode(plain, parse_special=False, add_special=False)
        return token_ids

    def _encode(self, text: str, add_special: bool) -> list[int]:
        try:
            if len(text) < _LONG_CHARS:
                return self._library.encode(text, add_special_tokens=add_special).ids
            # Only the batch method releases the GIL.
            [encoding] = self._library.encode_batch_fast([text], add_special_tokens=add_special)
            return encoding.ids
        except BaseException as error:
            raise _refused(error) from error


def has_library() -> bool:
    return find_spec("tokenizers") is not None


def load_encoder(document: bytes) -> Encoder:
    """Makes an encoder from a `tokenizer.json` document.

    Raises CheckpointError if the library rejects it, UnsupportedModelError without the library.
    """
    try:
        from tokenizers import Tokenizer as Library
    except ImportError as error:
        raise UnsupportedModelError(
            "this model's tokenizer needs the `tokenizers` package: pip install 'webllm[native]'"
        ) from error
    try:
        library = Library.from_buffer(document)
        library.no_truncation()
        library.no_padding()
    except BaseException as error:
        raise _refused(error) from error
    _trim_heap()
    return LibraryEncoder(library)


def _trim_heap() -> None:
    """Returns freed memory to the system, which glibc would keep: 6 MB for 49,000 tokens."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)


def _refused(error: BaseException) -> BaseException:
    """Translates errors: the library raises bare Exceptions, and panics that are BaseExceptions."""
    if isinstance(error, Exception) or type(error).__name__ == "PanicException":
        return CheckpointError(f"the tokenizer data is malformed: {error}")
    return error
