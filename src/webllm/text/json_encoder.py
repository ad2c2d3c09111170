"""Encodes text with the tables of a `tokenizer.json`, where the `tokenizers` library is missing.

It gives the library's ids. Kinds of tokenizers and components that it does not have are refused by
name, not encoded in another way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from webllm.errors import CheckpointError, UnsupportedModelError
from webllm.text.bpe_merge import Rank, WordEncoder
from webllm.text.bpe_model import BpeModel, MergeRanks, UnknownChars
from webllm.text.json_components import Part, affixes, normalizer, pre_tokenizer
from webllm.text.sentencepiece_bpe import word_pattern
from webllm.text.special_tokens import SpecialTokens
from webllm.text.steps import Steps
from webllm.text.vocabulary import SPACE_MARK

_BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]
_DECODED_MERGES = 1024
_OTHER_WAY = "install the `tokenizers` package (pip install 'webllm[native]'), which has it"


class BpeTable(msgspec.Struct):
    """The `model` of a `tokenizer.json`; other kinds than BPE have other fields.

    vocab: spelling to id. merges: pairs in order of rank, as JSON that is not decoded yet.
    """

    vocab: dict[str, int] | list[tuple[str, float]]
    type: str = "BPE"
    merges: msgspec.Raw = msgspec.Raw()
    unk_token: str | None = None
    byte_fallback: bool = False
    fuse_unk: bool = False
    ignore_merges: bool = False
    dropout: float | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None


class AddedToken(msgspec.Struct):
    """A token that is matched in text before everything else.

    special: a control token. normalized: it is matched in normalized text. lstrip, rstrip: the
    white space beside it belongs to it.
    """

    id: int
    content: str
    special: bool = False
    normalized: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False


class JsonEncoder:
    """A `PlainEncoder` (see `guarded_encoder`).

    The arguments are the parts of a `tokenizer.json`. Raises UnsupportedModelError, which names the
    component that is missing here, and CheckpointError for malformed ones.
    """

    def __init__(
        self,
        table: BpeTable,
        added: Sequence[AddedToken],
        normalizing: Part | None,
        splitting: Part | None,
        processing: Part | None,
    ) -> None:
        if any(token.single_word for token in added):
            raise UnsupportedModelError(
                f"added tokens of tokenizer.json with single_word are not supported; {_OTHER_WAY}"
            )
        self._normalize = normalizer(normalizing)
        self._split = pre_tokenizer(splitting)
        self._before, self._after = affixes(processing)
        self._special_ids = frozenset(token.id for token in added if token.special)
        self._raw = matcher(token for token in added if not token.normalized)
        self._normalized = matcher((t for t in added if t.normalized), self._normalize)
        ids = _vocabulary(table)
        self._words = WordEncoder(_model(table, ids).encode)
        # A text that is no single word for `ignore_merges` can be cut where no token crosses.
        is_cut = SPACE_MARK in ids and not table.ignore_merges
        self._at_spaces = word_pattern(ids) if is_cut else None

    def encode(
        self, text: str, *, parse_special: bool, add_special: bool, is_start: bool = True
    ) -> Steps[list[int]]:
        plain = frozenset() if parse_special else self._special_ids
        token_ids = list(self._before) if add_special else []
        for part in self._parts(text, plain):
            yield
            if part is None:
                continue
            if isinstance(part, int):
                token_ids.append(part)
            else:
                token_ids += yield from self._words.encode(self._cut(part, is_start))
            is_start = False
        return token_ids + self._after if add_special else token_ids

    def _parts(self, text: str, plain: frozenset[int]) -> Iterator[str | int | None]:
        """Yields added tokens and the normalized text between them; None while it finds neither."""
        for part in self._raw.split(text, plain):
            if isinstance(part, str):
                yield from self._normalized.split(self._normalize(part), plain)
            else:
                yield part

    def _cut(self, text: str, is_start: bool) -> Iterable[str]:
        words = self._split((text,), is_start)
        if self._at_spaces is None:
            return words
        return (match[0] for word in words for match in self._at_spaces.finditer(word))


def matcher(
    tokens: Iterable[AddedToken], spell: Callable[[str], str] = lambda text: text
) -> SpecialTokens:
    """Returns what finds `tokens` in text, each written as `spell` returns it."""
    spelled = {spell(token.content): token for token in tokens}
    return SpecialTokens(
        {text: token.id for text, token in spelled.items()},
        [text for text, token in spelled.items() if token.lstrip],
        [text for text, token in spelled.items() if token.rstrip],
    )


def _vocabulary(table: BpeTable) -> Mapping[str, int]:
    if table.type != "BPE" or not isinstance(table.vocab, dict):
        raise UnsupportedModelError(
            f"tokenizer.json of kind {table.type[:80]!r} is not supported here; {_OTHER_WAY}"
        )
    settings = {
        "dropout": table.dropout,
        "continuing_subword_prefix": table.continuing_subword_prefix,
        "end_of_word_suffix": table.end_of_word_suffix,
    }
    for name, value in settings.items():
        if value:
            raise UnsupportedModelError(
                f"{name} {value!r} in tokenizer.json is not supported here; {_OTHER_WAY}"
            )
    return table.vocab


def _model(table: BpeTable, ids: Mapping[str, int]) -> BpeModel:
    rank = MergeRanks(_merges(table.merges, ids))
    byte_ids = _byte_ids(ids, rank) if table.byte_fallback else {}
    unk_id = None if table.unk_token is None else ids.get(table.unk_token)
    unknown = UnknownChars(byte_ids, unk_id, table.fuse_unk)
    return BpeModel(ids, rank, unknown, ignore_merges=table.ignore_merges)


def _byte_ids(ids: Mapping[str, int], rank: Rank) -> dict[int, int]:
    """Returns the tokens of bytes: all 256, or none. Here they are the last resort, not merged."""
    byte_ids = {byte: ids[text] for byte, text in enumerate(_BYTE_TOKENS) if text in ids}
    if 0 < len(byte_ids) < len(_BYTE_TOKENS):
        raise UnsupportedModelError(
            f"byte_fallback with {len(byte_ids)} tokens of bytes instead of 256 in tokenizer.json "
            f"is not supported here; {_OTHER_WAY}"
        )
    names = frozenset(_BYTE_TOKENS)
    for text in ids:
        pairs = [(text[:6], text[6:])] if text[:6] in names else []
        pairs += [(text[:-6], text[-6:])] if text[-6:] in names else []
        if any(rank(*pair) is not None for pair in pairs):
            raise UnsupportedModelError(
                f"a merge of the token of a byte ({text[:80]!r}) in tokenizer.json is not "
                f"supported here; {_OTHER_WAY}"
            )
    return byte_ids


def _merges(merges: msgspec.Raw, ids: Mapping[str, int]) -> Iterator[str]:
    """Yields the merges ("a b", or ["a", "b"] in newer files).

    Some are decoded at a time: all of Gemma's would take 100 MB.
    """
    decode = msgspec.json.Decoder(list[str | tuple[str, str]]).decode
    try:
        encoded = msgspec.json.decode(merges, type=list[msgspec.Raw])
        for start in range(0, len(encoded), _DECODED_MERGES):
            some = decode(b"[%b]" % b",".join(encoded[start : start + _DECODED_MERGES]))
            pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in some]
            for pair in pairs:
                if pair.count(" ") != 1 or pair.replace(" ", "") not in ids:
                    raise CheckpointError(
                        f"tokenizer.json is malformed: {pair!r} merges to no token of its "
                        "vocabulary"
                    )
            yield from pairs
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"the merges of tokenizer.json are malformed: {error}") from error
