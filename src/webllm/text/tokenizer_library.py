"""The only module that imports the `tokenizers` library, which a browser does not have.

A `tokenizer.json` document goes in; after that, only text and token ids cross this boundary.
"""

from __future__ import annotations

import ctypes
import sys
from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING

from webllm.errors import CheckpointError
from webllm.text.guarded_encoder import PlainEncoder
from webllm.text.steps import Steps

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

_LONG_CHARS = 10_000  # longer texts are encoded without the GIL


class LibraryEncoder:
    """A `PlainEncoder` that uses a `tokenizers.Tokenizer`."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._lock = Lock()
        added = library.get_added_tokens_decoder().values()
        self._has_special = any(token.special for token in added)
        self._pre = library.pre_tokenizer
        self._has_start = getattr(self._pre, "prepend_scheme", None) == "first"

    def encode(
        self, text: str, *, parse_special: bool, add_special: bool, is_start: bool = True
    ) -> Steps[list[int]]:
        yield
        if not self._has_special and not self._has_start:
            return self._encode(text, add_special)
        # The switches belong to the library's object, not to the call: threads must take turns.
        with self._lock:
            self._library.encode_special_tokens = not parse_special
            if self._has_start:
                self._pre.prepend_scheme = "first" if is_start else "never"
            return self._encode(text, add_special)

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


def load_encoder(document: bytes) -> PlainEncoder:
    """Makes an encoder from a `tokenizer.json`; raises CheckpointError if the library rejects it.

    Call it only if `has_library` says so.
    """
    from tokenizers import Tokenizer as Library

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
