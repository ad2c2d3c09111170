"""Text that cannot control a terminal: without control characters, or with escapes of them.

A text from a model, a file, a server or the user could otherwise move the cursor or run commands.
"""

from __future__ import annotations

_CONTROLS = [code for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"]
_BIDI = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]  # can reorder the letters of a name
_NO_BYTES = range(0xDC80, 0xDD00)  # bytes in file names that are not UTF-8 (PEP 383)
_OMITTED = dict.fromkeys((*_CONTROLS, *_NO_BYTES))
_SHOWN = {
    **{code: f"\\x{code:02x}" for code in _CONTROLS},
    **{code: f"\\u{code:04x}" for code in _BIDI},
    **{code: f"\\x{code - 0xDC00:02x}" for code in _NO_BYTES},
}
_SHOWN_IN_A_LINE = {**_SHOWN, ord("\n"): "\\n", ord("\t"): "\\t"}


def visible(text: str) -> str:
    """Returns the text with control characters as escapes; line feeds and tabs stay."""
    return text.translate(_SHOWN)


def visible_in_a_line(text: str) -> str:
    """Returns the text as one line, with control characters as escapes."""
    return text.translate(_SHOWN_IN_A_LINE)


def without_controls(text: str) -> str:
    """Returns a piece of an answer without its control characters; line feeds and tabs stay.

    Each character is left out by itself, so that a sequence split over two pieces is harmless too.
    """
    return text.translate(_OMITTED)
