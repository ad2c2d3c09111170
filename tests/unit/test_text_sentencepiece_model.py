"""Compares a `tokenizer.model` read by ourselves with Google's SentencePiece."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from text_references import TEXTS, sentencepiece_model

from webllm.errors import CheckpointError, UnsupportedModelError, WebLLMError
from webllm.text.sentencepiece_model import tokenizer_from_sentencepiece

MODEL = sentencepiece_model()
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "gemma": {
        "add_dummy_prefix": False,
        "user_defined_symbols": ["\n", "\n\n", "▁▁", "▁▁▁", "<sep>"],
        "pad_id": 0,
        "eos_id": 1,
        "bos_id": 2,
        "unk_id": 3,
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_sentencepiece(kind: str) -> None:
    model = sentencepiece_model(**KINDS[kind])
    tokenizer = tokenizer_from_sentencepiece(model)
    reference = SentencePieceProcessor(model_proto=model)
    for text in [*TEXTS, "a<sep>b", "\n\n\n", "a    b"]:
        assert tokenizer.encode(text, add_special=False) == reference.encode(text), text
        assert tokenizer.encode(text) == [reference.bos_id(), *reference.encode(text)]
    assert tokenizer.vocab_size == reference.get_piece_size()
    assert tokenizer.bos_id == reference.bos_id()
    assert tokenizer.eos_ids == {reference.eos_id()}
    assert tokenizer.add_space_prefix == (kind == "llama")


def test_a_model_without_bos() -> None:
    tokenizer = tokenizer_from_sentencepiece(sentencepiece_model(bos_id=-1, eos_id=-1))
    assert tokenizer.bos_id is None
    assert not tokenizer.eos_ids
    assert tokenizer.encode("") == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"model_type": "unigram", "vocab_size": 400}, "kind 'unigram'"),
        ({"normalization_rule_name": "nmt_nfkc"}, "precompiled_charsmap"),
        ({"remove_extra_whitespaces": True}, "remove_extra_whitespaces"),
        ({"treat_whitespace_as_suffix": True}, "treat_whitespace_as_suffix"),
    ],
)
def test_what_we_do_not_have_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedModelError, match=named):
        tokenizer_from_sentencepiece(sentencepiece_model(**options))


@pytest.mark.parametrize(
    "data", [b"\x0b", b"\xff" * 12, MODEL[:-1], MODEL[:5000], b"\x0a\x02\x08\x01", b"\x12\x00\x80"]
)
def test_malformed_files(data: bytes) -> None:
    with pytest.raises((CheckpointError, UnsupportedModelError)):
        tokenizer_from_sentencepiece(data)


@given(st.lists(st.tuples(st.integers(0, len(MODEL) - 1), st.binary(max_size=3)), max_size=4))
def test_a_changed_file_is_read_or_refused(changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(MODEL)
    for position, replacement in changes:
        data[position : position + 2] = replacement
    with suppress(WebLLMError):
        tokenizer_from_sentencepiece(bytes(data)).encode("hello wörld")
