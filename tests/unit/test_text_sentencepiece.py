"""Compares the ids of the "llama" kind with Google's SentencePiece."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from text_references import PREFIX, TEXTS, sentencepiece_of, train_sentencepiece

from webllm.errors import CheckpointError
from webllm.text.bpe_model import BpeModel, UnknownChars
from webllm.text.gguf_tokenizer import tokenizer_from_gguf
from webllm.text.sentencepiece_bpe import ScoreRanks, SentencePieceBpe
from webllm.text.steps import finish
from webllm.text.tokenizer import Tokenizer

# Llama 2 has a space prefix; Gemma has none, and spaces and newlines as user-defined tokens.
KINDS: dict[str, dict[str, Any]] = {
    "llama": {"add_dummy_prefix": True},
    "gemma": {
        "add_dummy_prefix": False,
        "user_defined_symbols": ["\n", "\n\n", "▁▁", "▁▁▁", "<sep>", "<sep>x"],
    },
    "crossing words": {"add_dummy_prefix": False, "split_by_whitespace": False},
}


@cache
def _metadata(kind: str) -> dict[str, object]:
    return train_sentencepiece(**KINDS[kind])


@cache
def _tokenizer(kind: str) -> Tokenizer:
    return tokenizer_from_gguf(_metadata(kind))


@cache
def _reference(kind: str) -> SentencePieceProcessor:
    return sentencepiece_of(_metadata(kind))


each_kind = pytest.mark.parametrize("kind", KINDS)


def _plain(kind: str) -> Callable[[str], list[int]]:
    return lambda text: _tokenizer(kind).encode(text, add_special=False)


@each_kind
def test_ids_are_those_of_sentencepiece(kind: str) -> None:
    for text in [*TEXTS, "a<sep>xb<sep> c", "\n\n\n", "▁▁", "a    b"]:
        assert _plain(kind)(text) == _reference(kind).encode(text), text


@each_kind
@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("aeinst <sep>x\n▁é你😀1/"), max_size=30))
def test_ids_are_those_of_sentencepiece_for_any_text(kind: str, text: str) -> None:
    assert _plain(kind)(text) == _reference(kind).encode(text)


@each_kind
def test_decode_gives_back_the_text(kind: str) -> None:
    for text in TEXTS:
        if "▁" not in text:  # to SentencePiece it is a space
            assert _tokenizer(kind).decode(_plain(kind)(text)) == text


def test_a_leading_space_is_taken_away_only_where_the_prefix_put_it() -> None:
    llama, gemma = _tokenizer("llama"), _tokenizer("gemma")
    assert llama.decode(llama.encode(" a", add_special=False)) == " a"
    assert llama.decode([_id(llama, "▁"), _id(llama, "▁")]) == " "
    assert gemma.decode([_id(gemma, "▁"), _id(gemma, "▁")]) == "  "


def test_bos_is_added_and_control_tokens_are_parsed_only_on_demand() -> None:
    tokenizer = _tokenizer("llama")
    bos, eos = _id(tokenizer, "<s>"), _id(tokenizer, "</s>")
    assert tokenizer.bos_id == bos
    assert tokenizer.eos_ids == {eos}
    assert tokenizer.encode("") == [bos]
    assert tokenizer.encode("a</s>a", parse_special=True, add_special=False) == [
        *_plain("llama")("a"),
        eos,
        *_plain("llama")("a"),  # llama.cpp: the space prefix comes after every special token
    ]
    assert eos not in tokenizer.encode("a</s>a")
    assert tokenizer.token_bytes(eos) == b""
    assert tokenizer.decode([bos, eos]) == ""
    assert tokenizer.decode([bos, eos], skip_special=False) == "<s></s>"


def test_bytes_of_tokens() -> None:
    tokenizer = _tokenizer("gemma")
    assert tokenizer.token_bytes(_id(tokenizer, "<0xE2>")) == b"\xe2"
    assert tokenizer.token_bytes(_id(tokenizer, "▁▁▁")) == b"   "
    assert tokenizer.token_bytes(-1) == tokenizer.token_bytes(10**9) == b""
    assert b"".join(map(tokenizer.token_bytes, _plain("gemma")("né 你"))).decode() == "né 你"


def test_equal_scores_merge_from_the_left() -> None:
    ids = {"ab": 1, "ba": 2, "a": 3, "b": 4}
    bpe = _bpe({"ab": 0.0, "ba": 0.0}, ids)
    assert finish(bpe.encode("aba")) == [1, 3]
    assert finish(bpe.encode("bab")) == [2, 4]


def test_without_byte_tokens_a_run_of_unknown_characters_is_one_unknown_token() -> None:
    assert finish(_bpe({}, {"a": 1}, UnknownChars({}, 0)).encode("a你好a你")) == [
        1,
        0,
        1,
        0,
    ]
    assert finish(_bpe({}, {"a": 1}).encode("a你")) == [1]


def test_a_long_text_without_spaces_takes_no_quadratic_time() -> None:
    text = "你好世界abc" * 20_000
    assert _tokenizer("llama").decode(_tokenizer("llama").encode(text)) == text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tokens", None),
        ("tokens", ["a", 1]),
        ("tokens", "abc"),
        ("scores", [0.5]),
        ("scores", None),
        ("token_type", ["x"] * 700),
        ("add_space_prefix", 2),
        ("bos_token_id", "1"),
        ("bos_token_id", 700),
    ],
)
def test_malformed_metadata(name: str, value: object) -> None:
    metadata = _metadata("llama") | {PREFIX + name: value}
    with pytest.raises(CheckpointError, match=r"tokenizer\.ggml"):
        tokenizer_from_gguf(metadata)


def _bpe(
    scores: dict[str, float], ids: dict[str, int], unknown: UnknownChars | None = None
) -> SentencePieceBpe:
    return SentencePieceBpe(ids, BpeModel(ids, ScoreRanks(scores), unknown))


def _id(tokenizer: Tokenizer, text: str) -> int:
    token_id = tokenizer.token_id(text)
    assert token_id is not None
    return token_id
