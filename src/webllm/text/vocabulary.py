"""What token ids stand for: bytes, control tokens, the ends of a generation.

Two spellings of bytes as text exist. Byte-level BPE (GPT-2) writes each byte as one printable
character. SentencePiece writes text, with U+2581 for a space and `<0xE2>` for a single byte.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

SPACE_MARK = "\u2581"

# Names that only ever end a turn or a text, whatever type the file gives the token.
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
# Ends of text where the file says control token; otherwise they may be markup (Gemma's `</s>`).
END_NAMES_IF_CONTROL = frozenset({"</s>", "<eos>", "[EOS]"})


def byte_level_alphabet() -> dict[str, int]:
    """Character to byte, as GPT-2's `bytes_to_unicode`: printable Latin-1 stands for itself, the
    other 68 bytes for the characters from U+0100 on, in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


def byte_level_speller() -> Callable[[str], bytes]:
    """A function from a byte-level token's text to its bytes; text outside the alphabet is
    taken as it stands, as the `tokenizers` library does."""
    alphabet = byte_level_alphabet()

    def spell(text: str) -> bytes:
        try:
            return bytes([alphabet[char] for char in text])
        except KeyError:
            return utf8(text)

    return spell


def sentencepiece_bytes(text: str) -> bytes:
    """The bytes of a SentencePiece token's text."""
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        try:
            return bytes.fromhex(text[3:5])
        except ValueError:
            pass
    return utf8(text.replace(SPACE_MARK, " "))


def utf8(text: str) -> bytes:
    """UTF-8 of `text`. Files may hold bytes that are no UTF-8, read with `surrogateescape`: those
    come back; other unpaired surrogates become `?`."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return text.encode(errors="replace")


def end_ids(
    ids: Mapping[str, int], special_ids: Collection[int], named: Iterable[int | None]
) -> frozenset[int]:
    """Tokens that end a generation: the `named` ones, and those whose spelling says so."""
    found = {token_id for token_id in named if token_id is not None}
    found |= {ids[name] for name in END_NAMES if name in ids}
    found |= {ids[name] for name in END_NAMES_IF_CONTROL if ids.get(name) in special_ids}
    if "<|return|>" in ids and "<|call|>" in ids and "<|end|>" in ids:
        found.discard(ids["<|end|>"])  # gpt-oss: a message ends there, the turn goes on
    return frozenset(found)


def find_tokens(tokens: Iterable[str], names: Collection[str]) -> dict[str, int]:
    """The ids of those `names` that are tokens; of tokens spelled alike the first counts."""
    found: dict[str, int] = {}
    for token_id, text in enumerate(tokens):
        if text in names:
            found.setdefault(text, token_id)
    return found


def index_tokens(tokens: Sequence[str]) -> dict[str, int]:
    """Spelling to id; of tokens spelled alike the first counts."""
    last = len(tokens) - 1
    return dict(zip(reversed(tokens), range(last, -1, -1), strict=True))


@dataclass(frozen=True)  # no slots: it has a cached_property
class Vocabulary:
    """Token ids and what they stand for.

    `tokens[id]` is the spelling (empty where no token has that id), `spell` turns a spelling into
    bytes; `special_ids` stand for no bytes; `literal_ids` are tokens of a byte-level vocabulary
    that are spelled as plain text. `add_space_prefix` as in `Tokenizer`.
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
        """Made when first asked for: it takes several times the memory of the file's own list."""
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
