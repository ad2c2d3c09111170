"""Makes a tokenizer from a GGUF file's `tokenizer.ggml.*` metadata.

There are three kinds. "gpt2" is byte-level BPE with a word pattern chosen by `tokenizer.ggml.pre`;
it runs on the `tokenizers` library or, without it, on our `ByteLevelBpe`. "llama" is
SentencePiece's BPE, "gemma4" the same with ranks of merges; they run on our `SentencePieceBpe`.
Where GGUF says less than the original tokenizer, we do what llama.cpp does. Keys:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial

from webllm.errors import CheckpointError, UnsupportedModelError
from webllm.text.bpe_model import BpeModel, MergeRanks, UnknownChars
from webllm.text.byte_level_bpe import ByteLevelBpe
from webllm.text.fragment_encoder import FragmentEncoder, SpacePolicy
from webllm.text.gguf_fields import GgufFields
from webllm.text.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer, recognized
from webllm.text.sentencepiece_bpe import ScoreRanks, SentencePieceBpe
from webllm.text.steps import Steps
from webllm.text.tokenizer import Coverage, ModelTokenizer, byte_level_coverage
from webllm.text.tokenizer_json_writer import byte_level_json
from webllm.text.tokenizer_library import has_library, load_encoder
from webllm.text.vocabulary import (
    END_NAMES,
    END_NAMES_IF_CONTROL,
    Vocabulary,
    byte_level_alphabet,
    byte_level_speller,
    end_ids,
    find_tokens,
    index_tokens,
    sentencepiece_bytes,
)

_log = logging.getLogger(__name__)

_LINES = re.compile(r"\n+|[^\n]+")


class TokenType(IntEnum):
    """The values in `tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def tokenizer_from_gguf(metadata: Mapping[str, object]) -> ModelTokenizer:
    """Makes the tokenizer of the GGUF file with this `metadata`.

    Raises UnsupportedModelError for an unknown tokenizer kind or word pattern, CheckpointError for
    metadata that is missing or malformed.
    """
    fields = GgufFields(metadata)
    model = fields.text("model", "")
    if model == "gpt2":
        return _byte_level(fields)
    if model == "llama":
        return _sentencepiece(fields)
    if model == "gemma4":
        return _gemma4(fields)
    raise UnsupportedModelError(
        f"tokenizer kind {model!r} (tokenizer.ggml.model) is not supported; 'gpt2', 'llama' and "
        "'gemma4' are"
    )


@dataclass(frozen=True, slots=True)
class _Tokens:
    """The vocabulary of the file."""

    texts: Sequence[str]  # spelling of each id
    named: dict[str, int]  # spelling to id, of end tokens and of tokens of a single byte
    of_type: dict[float, list[int]]  # token type to ids; NORMAL is left out

    @property
    def control_ids(self) -> frozenset[int]:
        return frozenset(self.of_type[TokenType.CONTROL])

    def spelled(self, *types: TokenType) -> dict[str, int]:
        """Returns spelling to id of the tokens of some types."""
        return {self.texts[i]: i for kind in types for i in self.of_type.get(kind, [])}

    def ids_in_text(self) -> dict[str, int]:
        """Returns spelling to id of all tokens but control tokens, which text never becomes."""
        control, ids = self.control_ids, index_tokens(self.texts)
        return {text: token_id for text, token_id in ids.items() if token_id not in control}


def _read_tokens(fields: GgufFields, texts: Sequence[str]) -> _Tokens:
    named = find_tokens(texts, END_NAMES | END_NAMES_IF_CONTROL | byte_level_alphabet().keys())
    of_type: dict[float, list[int]] = {}
    if fields.has("token_type"):
        for token_id, kind in enumerate(fields.numbers("token_type", len(texts))):
            if kind != TokenType.NORMAL:
                of_type.setdefault(kind, []).append(token_id)
    # Some converters leave the end-of-turn tokens normal or user-defined.
    control = of_type.setdefault(TokenType.CONTROL, [])
    known = set(control)
    for name in END_NAMES & named.keys():
        if named[name] not in known:
            control.append(named[name])
    user_defined = of_type.get(TokenType.USER_DEFINED, [])
    of_type[TokenType.USER_DEFINED] = [i for i in user_defined if texts[i] not in END_NAMES]
    return _Tokens(texts, named, of_type)


def _byte_level(fields: GgufFields) -> ModelTokenizer:
    read = fields.strings if has_library() else fields.string_list
    tokens = _read_tokens(fields, read("tokens"))
    pre = _pre_tokenizer(fields, tokens.texts)
    encode = _byte_level_encode(tokens, read("merges"), pre)
    control = tokens.control_ids
    return _assemble(
        fields,
        tokens,
        encode,
        byte_level_speller(),
        SpacePolicy(),
        pre.add_bos,
        byte_level_coverage((c for c, i in tokens.named.items() if i not in control), pre.nfc),
    )


def _pre_tokenizer(fields: GgufFields, texts: Sequence[str]) -> PreTokenizer:
    name = fields.text("pre", "") or recognized(texts)
    if name is None:
        name = "default"
        _log.warning(
            "the file does not say how its tokenizer cuts words (tokenizer.ggml.pre), and its "
            "vocabulary of %d tokens is not a known one: they are cut as by llama.cpp, perhaps "
            "not as in training",
            len(texts),
        )
    pre = PRE_TOKENIZERS.get(name)
    if pre is None:
        raise UnsupportedModelError(
            f"pre-tokenizer {name!r} (tokenizer.ggml.pre) is not supported; the model's "
            "tokenizer.json may work instead"
        )
    return pre


def _byte_level_encode(
    tokens: _Tokens, merges: Iterable[str], pre: PreTokenizer
) -> Callable[[str], Steps[list[int]]]:
    if not has_library():
        return ByteLevelBpe(tokens.ids_in_text(), merges, pre).encode
    document = byte_level_json(tokens.texts, tokens.control_ids, merges, pre)
    library = load_encoder(document)
    return partial(library.encode, parse_special=False, add_special=False)


def _sentencepiece(fields: GgufFields) -> ModelTokenizer:
    tokens = _read_tokens(fields, fields.string_list("tokens"))
    scores = dict(zip(tokens.texts, _scores(fields, len(tokens.texts)), strict=True))
    for token_ids in tokens.of_type.values():  # only normal tokens are merged
        for token_id in token_ids:
            scores.pop(tokens.texts[token_id], None)
    unknown = _unknown_chars(fields, tokens)
    model = BpeModel(index_tokens(tokens.texts), ScoreRanks(scores), unknown)
    spaces = SpacePolicy(mark=True, prefix=fields.flag("add_space_prefix", True))
    return _assemble(
        fields,
        tokens,
        SentencePieceBpe(scores, model).encode,
        sentencepiece_bytes,
        spaces,
        True,
        Coverage() if unknown.byte_ids else None,
    )


def _scores(fields: GgufFields, num_tokens: int) -> list[float]:
    if fields.has("scores"):
        return fields.numbers("scores", num_tokens)
    _log.warning(
        "the file has no tokenizer.ggml.scores: its tokens count as equally likely, as in llama.cpp"
    )
    return [0.0] * num_tokens


def _gemma4(fields: GgufFields) -> ModelTokenizer:
    """SentencePiece's spelling with ranks of merges, which cross no newline."""
    tokens = _read_tokens(fields, fields.string_list("tokens"))
    unknown = _unknown_chars(fields, tokens)
    ids = tokens.ids_in_text()
    lines = {text: token_id for text, token_id in ids.items() if not text.strip("\n")}
    words = SentencePieceBpe(ids, BpeModel(ids, MergeRanks(fields.strings("merges")), unknown))

    def encode(text: str) -> Steps[list[int]]:
        token_ids: list[int] = []
        for match in _LINES.finditer(text):
            if match[0] in lines:
                token_ids.append(lines[match[0]])
            else:
                token_ids += yield from words.encode(match[0])
        return token_ids

    spaces = SpacePolicy(mark=True, prefix=fields.flag("add_space_prefix", False))
    coverage = Coverage() if unknown.byte_ids else None
    return _assemble(fields, tokens, encode, sentencepiece_bytes, spaces, True, coverage)


def _unknown_chars(fields: GgufFields, tokens: _Tokens) -> UnknownChars:
    byte_ids = {
        sentencepiece_bytes(tokens.texts[i])[0]: i
        for i in tokens.of_type.get(TokenType.BYTE, [])
        if len(sentencepiece_bytes(tokens.texts[i])) == 1
    }
    return UnknownChars(
        byte_ids if len(byte_ids) == 256 else {},
        fields.token_id("unknown_token_id", len(tokens.texts), default=0),
    )


def _assemble(
    fields: GgufFields,
    tokens: _Tokens,
    encode: Callable[[str], Steps[list[int]]],
    spell: Callable[[str], bytes],
    spaces: SpacePolicy,
    add_bos: bool,
    coverage: Coverage | None,
) -> ModelTokenizer:
    num_tokens = len(tokens.texts)
    is_llama = spaces.mark
    bos_id = fields.token_id("bos_token_id", num_tokens, default=1 if is_llama else None)
    eos_ids = fields.token_ids("eos_token_id", num_tokens, default=2 if is_llama else None)
    ends = [*eos_ids]
    for name in ("eot_token_id", "eom_token_id"):
        ends += fields.token_ids(name, num_tokens)
    special = [TokenType.CONTROL, TokenType.UNKNOWN, TokenType.UNUSED]
    special_ids = frozenset(i for kind in special for i in tokens.of_type.get(kind, []))
    encoder = FragmentEncoder(
        encode,
        tokens.spelled(TokenType.USER_DEFINED),
        tokens.spelled(TokenType.CONTROL, TokenType.UNKNOWN),
        (
            _affix(fields, "bos", [] if bos_id is None else [bos_id], num_tokens, add_bos),
            _affix(fields, "eos", eos_ids[:1], num_tokens, False),
        ),
        spaces,
    )
    vocabulary = Vocabulary(
        tokens.texts,
        spell,
        special_ids,
        frozenset() if is_llama else frozenset(tokens.of_type[TokenType.USER_DEFINED]),
        bos_id,
        end_ids(tokens.named, special_ids, ends),
        spaces.prefix,
    )
    return ModelTokenizer(vocabulary, encoder, coverage)


def _affix(
    fields: GgufFields, name: str, token_ids: list[int], num_tokens: int, default: bool
) -> list[int]:
    """Returns the tokens that are put before ("bos") or after ("eos") every text.

    default: whether they are if the file does not say so.
    """
    if not fields.flag(f"add_{name}_token", default):
        return []
    if fields.is_beyond(f"{name}_token_id", num_tokens):
        raise CheckpointError(
            f"tokenizer.ggml.add_{name}_token is set, but tokenizer.ggml.{name}_token_id names no "
            "token of the vocabulary"
        )
    if not token_ids:
        _log.warning(
            "the file has tokenizer.ggml.add_%s_token but no tokenizer.ggml.%s_token_id: nothing "
            "is added to texts",
            name,
            name,
        )
    return token_ids
