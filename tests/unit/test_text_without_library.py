"""Compares our byte-level BPE with the `tokenizers` library, from the same GGUF metadata."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_references import PREFIX, TEXTS, byte_level_metadata, known_chars, train_byte_level

from webllm.errors import CheckpointError
from webllm.text import gguf_tokenizer
from webllm.text.gguf_tokenizer import tokenizer_from_gguf
from webllm.text.pre_tokenizers import PRE_TOKENIZERS
from webllm.text.tokenizer import Tokenizer
from webllm.text.word_splitter import to_python

Metadata = dict[str, Any]


@pytest.fixture(scope="module")
def metadata() -> Metadata:
    return byte_level_metadata(train_byte_level())


def _ours(metadata: Metadata) -> Tokenizer:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf_tokenizer, "has_library", lambda: False)
        return tokenizer_from_gguf(metadata)


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_every_family_gives_the_librarys_ids(metadata: Metadata, pre: str) -> None:
    family = metadata | {PREFIX + "pre": pre}
    ours, library = _ours(family), tokenizer_from_gguf(family)
    for text in [*TEXTS, "I'LL it'\u017f \x1c\x85\u2028 a\u200b\xa0b", "x" * 300 + "é" * 300]:
        expected = library.encode(text, parse_special=True)
        assert ours.encode(text, parse_special=True) == expected, text


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "qwen2", "tekken", "deepseek-v3", "default"])
def test_any_text_gives_the_librarys_ids(metadata: Metadata, pre: str) -> None:
    family = metadata | {PREFIX + "pre": pre}
    ours, library = _ours(family), tokenizer_from_gguf(family)

    @settings(max_examples=100, deadline=None)
    @given(st.text(known_chars(), max_size=40))
    def same(text: str) -> None:
        assert ours.encode(text) == library.encode(text)

    same()


def test_a_merge_that_is_no_token_is_an_error(metadata: Metadata) -> None:
    tokenizer = _ours(metadata | {PREFIX + "merges": ["q z"]})
    with pytest.raises(CheckpointError, match="'qz' is merged but is not a token"):
        tokenizer.encode("qz")


def test_patterns_for_python() -> None:
    assert to_python(r"a\.[^\r\n]|\r") == r"a\.[^\r\n]|\r"
    assert to_python(r"\p{Zl}[^\p{Zl}\p{Zp}]") == (
        r"[\U00002028-\U00002028][^\U00002028-\U00002028\U00002029-\U00002029]"
    )
