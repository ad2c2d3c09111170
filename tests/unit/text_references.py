"""Independent references for the tokenizer tests, and the texts to compare on.

The reference libraries train small vocabularies, which are converted to GGUF metadata. Conversely,
SentencePiece models are built from such metadata.
"""

import io
import json
import struct
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import sentencepiece
import tokenizers
from hypothesis import strategies as st

from webllm.engine.chat_format import ChatFormat, guarded
from webllm.text.pre_tokenizers import PRE_TOKENIZERS
from webllm.text.steps import finish
from webllm.text.tokenizer import Tokenizer
from webllm.text.tokenizer_json_writer import byte_level_json

PREFIX = "tokenizer.ggml."
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "tokenizers.json").read_text())
TEXTS: list[str] = [text for text, _ in GOLDEN["models"]["smollm2"]["plain"]]
_TRAINING = [line for text in TEXTS[:18] for line in text.split("\n") if "\0" not in line] * 3
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def encoded(
    chat_format: ChatFormat, messages: Sequence[Mapping[str, Any]], tokenizer: Tokenizer
) -> list[int]:
    """Encodes a conversation as the engine does."""
    prompt = chat_format.render(finish(guarded(messages, tokenizer)))
    return [*chat_format.prefix_ids, *tokenizer.encode_prompt(prompt)]


def known_chars() -> st.SearchStrategy[str]:
    """Characters in the Unicode versions of both Python and the `tokenizers` library."""
    return st.characters(exclude_categories=["Cs", "Cn"]).filter(
        lambda char: unicodedata.ucd_3_2_0.category(char) == unicodedata.category(char)
    )


def sentencepiece_model(**options: Any) -> bytes:
    """Trains a SentencePiece vocabulary with these options and returns its `tokenizer.model`."""
    model = io.BytesIO()
    defaults: dict[str, Any] = {
        "model_type": "bpe",
        "vocab_size": 700,
        "byte_fallback": True,
        "character_coverage": 0.99,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_TRAINING), model_writer=model, **defaults | options
    )
    return model.getvalue()


def train_sentencepiece(**options: Any) -> dict[str, object]:
    """Trains a SentencePiece BPE vocabulary with these options; returns it as GGUF metadata."""
    model = sentencepiece_model(**options)
    trained = sentencepiece.SentencePieceProcessor(model_proto=model)
    ids = range(trained.get_piece_size())
    user_defined = options.get("user_defined_symbols", [])

    def kind(i: int) -> int:
        if trained.is_unknown(i):
            return 2
        if trained.is_control(i):
            return 3
        return 6 if trained.is_byte(i) else 4 if trained.id_to_piece(i) in user_defined else 1

    return {
        PREFIX + "model": "llama",
        PREFIX + "tokens": [trained.id_to_piece(i) for i in ids],
        PREFIX + "scores": [trained.get_score(i) for i in ids],
        PREFIX + "token_type": [kind(i) for i in ids],
        PREFIX + "unknown_token_id": trained.unk_id(),
        PREFIX + "add_space_prefix": options.get("add_dummy_prefix", True),
    }


def train_byte_level() -> tokenizers.Tokenizer:
    """Trains a GPT-2 style tokenizer of the `tokenizers` library, with ChatML's control tokens."""
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=CONTROL,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(_TRAINING, trainer)
    return trained


def byte_level_metadata(trained: tokenizers.Tokenizer, pre: str = "gpt-2") -> dict[str, object]:
    """Returns the GGUF metadata of a byte-level tokenizer, as converters write it."""
    model = json.loads(trained.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return {
        PREFIX + "model": "gpt2",
        PREFIX + "pre": pre,
        PREFIX + "tokens": tokens,
        PREFIX + "token_type": [3 if token in CONTROL else 1 for token in tokens],
        PREFIX + "merges": [" ".join(pair) for pair in model["merges"]],
        PREFIX + "bos_token_id": tokens.index("<|im_start|>"),
        PREFIX + "eos_token_id": tokens.index("<|im_end|>"),
    }


def json_document(metadata: Mapping[str, object]) -> bytes:
    """Returns the `tokenizer.json` that converters would have made beside this GGUF metadata."""
    tokens = list(cast(Sequence[str], metadata[PREFIX + "tokens"]))
    types = list(cast(Sequence[int], metadata[PREFIX + "token_type"]))
    added = [
        {"id": i, "content": tokens[i], "special": kind == 3}
        | dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
        for i, kind in enumerate(types)
        if kind in (3, 4)
    ]
    if metadata[PREFIX + "model"] == "gpt2":
        pre = PRE_TOKENIZERS[str(metadata[PREFIX + "pre"])]
        merges = cast(Sequence[str], metadata[PREFIX + "merges"])
        document = json.loads(byte_level_json(tokens, (), merges, pre))
        return json.dumps(document | {"added_tokens": added}).encode()
    scores = dict(zip(tokens, cast(Sequence[float], metadata[PREFIX + "scores"]), strict=True))
    normal = [text for text, kind in zip(tokens, types, strict=True) if kind == 1]
    document = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "model": {
            "type": "BPE",
            "byte_fallback": True,
            "unk_token": "<unk>",
            "fuse_unk": True,
            "vocab": {text: i for i, text in enumerate(tokens)},
            "merges": ranked_merges(tokens, scores, normal),
        },
    }
    return json.dumps(document).encode()


def ranked_merges(
    tokens: Sequence[str], scores: Mapping[str, float], merged: Sequence[str]
) -> list[list[str]]:
    """Returns the merges that make the tokens in `merged`, the best score first."""
    ids = {text: i for i, text in enumerate(tokens)}
    splits = [[text[:i], text[i:]] for text in merged for i in range(1, len(text))]
    pairs = [pair for pair in splits if pair[0] in ids and pair[1] in ids]
    return sorted(pairs, key=lambda pair: (-scores["".join(pair)], ids[pair[0]], ids[pair[1]]))


def sentencepiece_of(metadata: Mapping[str, object]) -> sentencepiece.SentencePieceProcessor:
    """Makes Google's own tokenizer with the vocabulary of GGUF metadata of the "llama" kind.

    Its model is a protobuf, encoded here field by field (`sentencepiece_model.proto`).
    """
    tokens = cast(Sequence[str], metadata[PREFIX + "tokens"])
    scores = cast(Sequence[float], metadata[PREFIX + "scores"])
    types = cast(Sequence[int], metadata[PREFIX + "token_type"])
    unknown_id = cast(int, metadata[PREFIX + "unknown_token_id"])
    model = bytearray()
    for token_id, (text, score, kind) in enumerate(zip(tokens, scores, types, strict=True)):
        spelled = text.replace(" ", "\u2581") if kind == 4 else text
        kind = 2 if token_id == unknown_id else kind
        piece = _bytes(1, spelled.encode()) + b"\x15" + struct.pack("<f", score) + _int(3, kind)
        model += _bytes(1, piece)
    is_bpe, has_byte_fallback = _int(3, 2), _int(35, 1 if 6 in types else 0)
    no_bos_eos_pad = b"".join(_int(field, -1) for field in (41, 42, 43))
    model += _bytes(2, is_bpe + has_byte_fallback + _int(40, unknown_id) + no_bos_eos_pad)
    prefix = 1 if metadata.get(PREFIX + "add_space_prefix", True) else 0
    model += _bytes(3, _bytes(1, b"identity") + _int(3, prefix) + _int(4, 0) + _int(5, 1))
    return sentencepiece.SentencePieceProcessor(model_proto=bytes(model))


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value
