"""The normalizers, pre-tokenizers and post-processors of a `tokenizer.json`, without its library.

Each does what the component of that name does in the `tokenizers` library. A kind that is not here
is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Literal, Protocol, TypeVar
from unicodedata import normalize

import msgspec

from webllm.errors import CheckpointError, UnsupportedModelError
from webllm.text.byte_level_bpe import bytes_to_chars
from webllm.text.pre_tokenizers import GPT2_WORDS
from webllm.text.vocabulary import SPACE_MARK
from webllm.text.word_splitter import Behavior, compile_pattern, split_each

_MAX_PARTS = 64  # of a sequence
_ASCII_PUNCTUATION = r"!-/:-@\[-`{-~"

Part = Mapping[str, Any]
Normalize = Callable[[str], str]
_T = TypeVar("_T")


class Split(Protocol):
    """Cuts pieces of text into smaller ones; `is_start`: the first begins the whole text."""

    def __call__(self, pieces: Iterable[str], is_start: bool) -> Iterable[str]: ...


def normalizer(part: Part | None) -> Normalize:
    """Returns a function that normalizes text; raises UnsupportedModelError, CheckpointError."""
    return _chain([_made("normalizer", _NORMALIZERS, part) for part in parts(part, "normalizers")])


def pre_tokenizer(part: Part | None) -> Split:
    """Returns a function that cuts text into words. Raises as `normalizer`."""
    found = parts(part, "pretokenizers")
    if any(each.get("prepend_scheme") == "first" for each in found[1:]):
        raise UnsupportedModelError(
            "a Metaspace pre-tokenizer that is not the first one is not supported"
        )
    splits = [_made("pre-tokenizer", _PRE_TOKENIZERS, each) for each in found]

    def split(pieces: Iterable[str], is_start: bool) -> Iterable[str]:
        for each in splits:
            pieces = each(pieces, is_start)
        return pieces

    return split


def affixes(part: Part | None) -> tuple[list[int], list[int]]:
    """Returns the ids that a post-processor puts before and after a text. Raises as above."""
    before: list[int] = []
    after: list[int] = []
    for each in parts(part, "processors"):
        added = _made("post-processor", _POST_PROCESSORS, each)
        before, after = added[0] + before, after + added[1]
    return before, after


def parts(part: Part | None, key: str) -> list[Part]:
    """Returns the components of a sequence, whose list is called `key`, in order."""
    found: list[Part] = []
    pending: list[Any] = [part]
    while pending and len(found) < _MAX_PARTS:
        each = pending.pop()
        if each is None:
            continue
        if not isinstance(each, dict):
            raise CheckpointError(
                f"tokenizer.json is malformed: {str(each)[:80]!r} is no component"
            )
        inner = each.get(key) if each.get("type") == "Sequence" else None
        if isinstance(inner, list):
            pending += reversed(inner)
        else:
            found.append(each)
    return found


def _made(kind: str, table: Mapping[str, Callable[[Part], _T]], part: Part) -> _T:
    name = part.get("type")
    make = table.get(name) if isinstance(name, str) else None
    if make is None:
        raise UnsupportedModelError(
            f"{kind} {str(name)[:80]!r} of tokenizer.json is not supported here; install the "
            "`tokenizers` package (pip install 'webllm[native]'), which has it"
        )
    try:
        return make(part)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"tokenizer.json is malformed: {kind} {name}: {error}") from error


def _chain(functions: list[Normalize]) -> Normalize:
    def normalized(text: str) -> str:
        for function in functions:
            text = function(text)
        return text

    return normalized


class _Pattern(msgspec.Struct):
    String: str | None = None
    Regex: str | None = None

    def compiled(self) -> re.Pattern[str]:
        if self.String:
            return re.compile(re.escape(self.String))
        if self.Regex:
            return compile_pattern(self.Regex)
        raise msgspec.ValidationError("a pattern must have a String or a Regex")


# Normalizers


class _Prepend(msgspec.Struct):
    prepend: str

    def __call__(self, text: str) -> str:
        return self.prepend + text if text else text


class _Replace(msgspec.Struct):
    pattern: _Pattern
    content: str

    def function(self) -> Normalize:
        pattern, content = self.pattern.compiled(), self.content
        return lambda text: pattern.sub(lambda _: content, text)


def _unicode(part: Part) -> Normalize:
    return partial(normalize, part["type"])


_NORMALIZERS: dict[str, Callable[[Part], Normalize]] = {
    **dict.fromkeys(["NFC", "NFD", "NFKC", "NFKD"], _unicode),
    "Prepend": lambda part: msgspec.convert(part, _Prepend),
    "Replace": lambda part: msgspec.convert(part, _Replace).function(),
}


# Pre-tokenizers


class _Split(msgspec.Struct):
    pattern: _Pattern
    behavior: Behavior
    invert: bool = False

    def function(self) -> Split:
        return _splitter(self.pattern.compiled(), self.behavior, self.invert)


class _Digits(msgspec.Struct):
    individual_digits: bool = False

    def function(self) -> Split:
        behavior = Behavior.ISOLATED if self.individual_digits else Behavior.CONTIGUOUS
        return _splitter(compile_pattern(r"\p{N}"), behavior)


class _Punctuation(msgspec.Struct):
    behavior: Behavior = Behavior.ISOLATED

    def function(self) -> Split:
        return _splitter(compile_pattern(rf"[{_ASCII_PUNCTUATION}\p{{P}}]"), self.behavior)


class _ByteLevel(msgspec.Struct):
    add_prefix_space: bool = True
    use_regex: bool = True

    def function(self) -> Split:
        words = compile_pattern(GPT2_WORDS)
        to_chars = bytes_to_chars()

        def split(pieces: Iterable[str], is_start: bool) -> Iterable[str]:
            if self.add_prefix_space:
                pieces = map(partial(_prefixed, " "), pieces)
            if self.use_regex:
                pieces = split_each(words, pieces)
            return map(to_chars, pieces)

        return split


class _Metaspace(msgspec.Struct):
    replacement: str = SPACE_MARK
    prepend_scheme: Literal["always", "never", "first"] | None = None
    add_prefix_space: bool | None = None  # in older files
    split: bool = True

    def function(self) -> Split:
        mark = self.replacement
        if len(mark) != 1:
            raise msgspec.ValidationError(f"the replacement {mark!r} must be one character")
        scheme = self.prepend_scheme or ("never" if self.add_prefix_space is False else "always")
        marks = re.compile(re.escape(mark))

        def marked(pieces: Iterable[str], is_start: bool) -> Iterator[str]:
            for i, piece in enumerate(pieces):
                is_first = is_start and i == 0
                piece = piece.replace(" ", mark)
                adds = scheme == "always" or (scheme == "first" and is_first)
                yield _prefixed(mark, piece) if adds else piece

        def split(pieces: Iterable[str], is_start: bool) -> Iterable[str]:
            pieces = marked(pieces, is_start)
            if not self.split:
                return pieces
            return split_each(marks, pieces, Behavior.MERGED_WITH_NEXT)

        return split


def _prefixed(prefix: str, text: str) -> str:
    return text if text.startswith(prefix) or not text else prefix + text


def _splitter(pattern: re.Pattern[str], behavior: Behavior, invert: bool = False) -> Split:
    return lambda pieces, is_start: split_each(pattern, pieces, behavior, invert)


_PRE_TOKENIZERS: dict[str, Callable[[Part], Split]] = {
    "ByteLevel": lambda part: msgspec.convert(part, _ByteLevel).function(),
    "Digits": lambda part: msgspec.convert(part, _Digits).function(),
    "Metaspace": lambda part: msgspec.convert(part, _Metaspace).function(),
    "Punctuation": lambda part: msgspec.convert(part, _Punctuation).function(),
    "Split": lambda part: msgspec.convert(part, _Split).function(),
}


# Post-processors


class _TokenIds(msgspec.Struct):
    ids: list[int]


class _Named(msgspec.Struct):
    id: str


class _TemplatePiece(msgspec.Struct):
    SpecialToken: _Named | None = None
    Sequence: _Named | None = None


class _Template(msgspec.Struct):
    single: list[_TemplatePiece]
    special_tokens: dict[str, _TokenIds] = {}

    def affixes(self) -> tuple[list[int], list[int]]:
        before: list[int] = []
        after: list[int] = []
        has_text = False
        for piece in self.single:
            if piece.Sequence is not None:
                if has_text:
                    raise msgspec.ValidationError("a template holds the text twice")
                has_text = True
            elif piece.SpecialToken is not None:
                token = self.special_tokens.get(piece.SpecialToken.id)
                if token is None:
                    raise msgspec.ValidationError(f"no special token {piece.SpecialToken.id!r}")
                (after if has_text else before).extend(token.ids)
        if not has_text:
            raise msgspec.ValidationError("a template lacks the text")
        return before, after


class _Enclosing(msgspec.Struct):
    cls: tuple[str, int]
    sep: tuple[str, int]

    def affixes(self) -> tuple[list[int], list[int]]:
        return [self.cls[1]], [self.sep[1]]


_POST_PROCESSORS: dict[str, Callable[[Part], tuple[list[int], list[int]]]] = {
    "BertProcessing": lambda part: msgspec.convert(part, _Enclosing).affixes(),
    "ByteLevel": lambda part: ([], []),  # changes the places of tokens in the text only
    "RobertaProcessing": lambda part: msgspec.convert(part, _Enclosing).affixes(),
    "TemplateProcessing": lambda part: msgspec.convert(part, _Template).affixes(),
}
