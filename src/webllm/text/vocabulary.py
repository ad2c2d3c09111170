"""The meaning of token ids: their bytes, the control tokens, the tokens that end a generation.

A vocabulary spells bytes in one of two ways. Byte-level BPE (GPT-2) writes each byte as one
printable character. SentencePiece writes text, with U+2581 for a space and `<0xE2>` for a single
byte.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

SPACE_MARK = "\u2581"

# Tokens that always end a turn or a text, whatever type the file gives them.
END_NAMES = frozenset(
    {
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|im_end|>",
        "<|end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<end_of_turn>",
        "<end_of_utterance>",
        "<turn|>",
        "<EOT>",
        "[EOT]",
        "<|return|>",
        "<|call|>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
    }
)
# These end a text only if they are control tokens; otherwise they may be markup (Gemma's `</s>`).
END_NAMES_IF_CONTROL = frozenset({"</s>", "<eos>", "[EOS]"})


def byte_level_alphabet() -> dict[str, int]:
    """Character to byte, the inverse of GPT-2's `bytes_to_unicode`.

    Printable Latin-1 stands for itself; the other 68 bytes are the characters from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


def byte_level_speller() -> Callable[[str], bytes]:
    """Returns a function from a byte-level token's text to its bytes.

    Text outside the alphabet becomes its UTF-8, as in the `tokenizers` library.
    """
    alphabet = byte_level_alphabet()

    def spell(text: str) -> bytes:
        try:
            return bytes([alphabet[char] for char in text])
        except KeyError:
            return utf8(text)

    return spell


def sentencepiece_bytes(text: str) -> bytes:
    """Returns the bytes of a SentencePiece token's text."""
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        try:
            return bytes.fromhex(text[3:5])
        except ValueError:
            pass
    return utf8(text.replace(SPACE_MARK, " "))


def utf8(text: str) -> bytes:
    """Encodes `text` as UTF-8, escaped bytes (`surrogateescape`) as themselves.

    Other unpaired surrogates become `?`.
    """
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return text.encode(errors="replace")


def end_ids(
    ids: Mapping[str, int], special_ids: Collection[int], named: Iterable[int | None]
) -> frozenset[int]:
    """Returns the tokens that end a generation: the `named` ones and those with END_NAMES."""
    found = {token_id for token_id in named if token_id is not None}
    found |= {ids[name] for name in END_NAMES if name in ids}
    found |= {ids[name] for name in END_NAMES_IF_CONTROL if ids.get(name) in special_ids}
    if "<|return|>" in ids and "<|call|>" in ids and "<|end|>" in ids:
        found.discard(ids["<|end|>"])  # gpt-oss: it ends a message, but not the turn
    return frozenset(found)


def find_tokens(tokens: Iterable[str], names: Collection[str]) -> dict[str, int]:
    """Finds the ids of those `names` that are tokens; of tokens spelled alike the first counts."""
    found: dict[str, int] = {}
    for token_id, text in enumerate(tokens):
        if text in names:
            found.setdefault(text, token_id)
    return found


def index_tokens(tokens: Sequence[str]) -> dict[str, int]:
    """Returns spelling to id; of tokens spelled alike the first counts."""
    last = len(tokens) - 1
    return dict(zip(reversed(tokens), range(last, -1, -1), strict=True))


@dataclass(frozen=True)  # no slots: it has a cached_property
class Vocabulary:
    """The tokens of a model by id.

    `tokens[id]` is a token's spelling (empty if no token has that id), and `spell` turns it into
    bytes. `special_ids` have no bytes. `literal_ids` are tokens of a byte-level vocabulary that are
    spelled as plain text. `add_space_prefix` is as in `Tokenizer`.
    """

    tokens: Sequence[str]
    spell: Callable[[str], bytes]
    special_ids: frozenset[int]
    literal_ids: frozenset[int] = frozenset()
    bos_id: int | None = None
    eos_ids: frozenset[int] = frozenset()
    add_space_prefix: bool = False

    @cached_property
    def _ids(self) -> dict[str, int]:
        """Spelling to id, made lazily: it takes several times the memory of the file's list."""
        return index_tokens(self.tokens)

    def token_id(self, text: str) -> int | None:
        return self._ids.get(text) if text else None

    def token_bytes(self, token_id: int) -> bytes:
        if token_id in self.special_ids or not 0 <= token_id < len(self.tokens):
            return b""
        text = self.tokens[token_id]
        return utf8(text) if token_id in self.literal_ids else self.spell(text)

    def decode(self, token_ids: Iterable[int], *, skip_special: bool = True) -> str:
        pieces = [
            utf8(self.tokens[token_id])
            if token_id in self.special_ids and not skip_special
            else self.token_bytes(token_id)
            for token_id in token_ids
        ]
        data = b"".join(pieces)
        if self.add_space_prefix:
            data = data.removeprefix(b" ")
        return data.decode(errors="replace")
