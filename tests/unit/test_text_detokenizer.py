"""Streaming text: deltas are whole characters, and together equal one decode."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_references import TEXTS, byte_level_metadata, train_byte_level, train_sentencepiece

from webllm.text.detokenizer import StreamingDetokenizer
from webllm.text.gguf_tokenizer import tokenizer_from_gguf
from webllm.text.tokenizer import Tokenizer

each_kind = pytest.mark.parametrize("kind", ["byte level", "sentencepiece"])


@cache
def _tokenizer(kind: str) -> Tokenizer:
    if kind == "sentencepiece":
        return tokenizer_from_gguf(train_sentencepiece())
    return tokenizer_from_gguf(byte_level_metadata(train_byte_level()))


def _stream(kind: str, token_ids: list[int], *, skip_special: bool = True) -> list[str]:
    detokenizer = StreamingDetokenizer(_tokenizer(kind), skip_special=skip_special)
    return [*map(detokenizer.push, token_ids), detokenizer.flush()]


@each_kind
@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(-1, 720), max_size=30), st.booleans())
def test_deltas_are_the_whole_decode(kind: str, token_ids: list[int], skip_special: bool) -> None:
    whole = _tokenizer(kind).decode(token_ids, skip_special=skip_special)
    assert "".join(_stream(kind, token_ids, skip_special=skip_special)) == whole


@each_kind
def test_texts_come_back_without_half_characters(kind: str) -> None:
    for text in TEXTS:
        deltas = _stream(kind, _tokenizer(kind).encode(text))
        assert "".join(deltas) == text.replace("▁", " " if kind == "sentencepiece" else "▁")
        assert not any("\ufffd" in delta for delta in deltas)


def test_a_character_comes_with_its_last_byte() -> None:
    tokenizer = _tokenizer("sentencepiece")
    ids = [tokenizer.token_id(f"<0x{byte:02X}>") or 0 for byte in "😀".encode()]
    assert _stream("sentencepiece", ids) == ["", "", "", "😀", ""]
    assert _stream("sentencepiece", ids[:3]) == ["", "", "", "\ufffd"]
    assert "".join(_stream("sentencepiece", [*ids[:2], *ids])) == "\ufffd😀"


def test_the_prefix_space_is_dropped_once() -> None:
    tokenizer = _tokenizer("sentencepiece")
    space, bos = tokenizer.token_id("▁"), tokenizer.bos_id
    assert space is not None
    assert bos is not None
    assert _stream("sentencepiece", [bos, space, space]) == ["", "", " ", ""]
