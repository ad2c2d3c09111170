"""Compares the "gpt2" kind with the `tokenizers` library's own byte-level tokenizer."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_references import PREFIX, TEXTS, byte_level_metadata, train_byte_level
from tokenizers import Tokenizer as Library

from webllm.errors import CheckpointError, UnsupportedModelError
from webllm.text.gguf_tokenizer import tokenizer_from_gguf
from webllm.text.pre_tokenizers import PRE_TOKENIZERS
from webllm.text.tokenizer import Tokenizer
from webllm.text.vocabulary import byte_level_alphabet

Metadata = dict[str, Any]


@pytest.fixture(scope="module")
def reference() -> Library:
    return train_byte_level()


@pytest.fixture(scope="module")
def metadata(reference: Library) -> Metadata:
    return byte_level_metadata(reference)


@pytest.fixture(scope="module")
def tokenizer(metadata: Metadata) -> Tokenizer:
    return tokenizer_from_gguf(metadata)


def test_ids_are_those_of_the_library(reference: Library, tokenizer: Tokenizer) -> None:
    for text in TEXTS:
        expected = reference.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text, parse_special=True) == expected, text


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(), max_size=40))
def test_any_text_survives_a_round_trip(tokenizer: Tokenizer, text: str) -> None:
    decoded = tokenizer.decode(tokenizer.encode(text))
    assert decoded == text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@pytest.mark.parametrize(
    "pattern", ["\ud83d\ude42", "a\ud83d\ude42", "\ud83d", "\ude42\ud83dx", "é\udfff"]
)
def test_long_texts_of_surrogates_keep_their_pairs(tokenizer: Tokenizer, pattern: str) -> None:
    text = (pattern * 50_000)[:70_001]
    decoded = tokenizer.decode(tokenizer.encode(text))
    assert decoded == text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_every_family_gives_back_every_text(metadata: Metadata, pre: str) -> None:
    tokenizer = tokenizer_from_gguf(metadata | {PREFIX + "pre": pre})
    for text in TEXTS:
        if not PRE_TOKENIZERS[pre].nfc or text.isascii():
            assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("")[:1] == ([1] if PRE_TOKENIZERS[pre].add_bos else [])


@pytest.mark.parametrize(
    ("pre", "text", "words"),
    [
        ("gpt-2", "I'LL it's 1234 a  b", "I|'|LL| it|'s| 1234| a| | b"),
        ("smollm", "a 1234", "a| |1|2|3|4"),
        ("llama-bpe", "I'LL 12345 a\n\n b!?\n", "I|'LL| |123|45| a|\n\n| b|!?\n"),
        ("qwen2", "x123 HTTPServer", "x|1|2|3| HTTPServer"),
        ("tekken", "HTTPServer isOK 12 a/b//\n", "HTTPServer| is|OK| |1|2| a|/b|//\n"),
        ("gpt-4o", "HTTPServer's 1234", "HTTPServer's| |123|4"),
        ("falcon", "a, b 12345!", "a|,| b| |123|45|!"),
        ("deepseek-v3", "a中文 1234.x", "a|中文| |123|4|.x"),
        ("deepseek-coder", "a1 中文,\n", "a|1| |中文|,|\n"),
        ("deepseek-llm", "Aé12 中文, b!\n  ", "A|é|1|2| |中文|,| b|!|\n|  "),
    ],
)
def test_where_a_family_cuts_words(pre: str, text: str, words: str) -> None:
    expected = words.split("|")
    assert "".join(expected) == text
    spelled = {char: byte for byte, char in _alphabet().items()}
    merges = [pair for word in expected for pair in _merges_of(word)]
    vocab = [*_alphabet().values(), *dict.fromkeys(left + right for left, right in merges)]
    tokenizer = tokenizer_from_gguf(
        {
            PREFIX + "model": "gpt2",
            PREFIX + "pre": pre,
            PREFIX + "tokens": vocab,
            PREFIX + "merges": [f"{left} {right}" for left, right in dict.fromkeys(merges)],
            PREFIX + "add_bos_token": False,
        }
    )
    ids = tokenizer.encode(text)
    assert [tokenizer.token_bytes(i).decode() for i in ids] == expected
    assert len(spelled) == 256


def test_special_tokens_and_ends(tokenizer: Tokenizer) -> None:
    assert tokenizer.special_ids == {0, 1, 2}
    assert tokenizer.bos_id == 1
    assert tokenizer.eos_ids == {0, 2}  # <|endoftext|> too, though the metadata names one
    text = "<|im_start|>a<|im_end|>"
    parsed = tokenizer.encode(text, parse_special=True)
    assert (parsed[0], parsed[-1]) == (1, 2)
    assert not set(tokenizer.encode(text)) & {0, 1, 2}
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(parsed) == "a"
    assert tokenizer.decode(parsed, skip_special=False) == text
    assert tokenizer.token_id("<|im_end|>") == 2
    assert tokenizer.token_id("nope") is None


def test_bos_and_eos_are_added_when_the_file_says_so(metadata: Metadata) -> None:
    flags = {PREFIX + "add_bos_token": True, PREFIX + "add_eos_token": True}
    tokenizer = tokenizer_from_gguf(metadata | flags)
    assert tokenizer.encode("") == [1, 2]
    assert tokenizer.encode("", add_special=False) == []


def test_user_defined_tokens_always_match_the_longest_first(metadata: Metadata) -> None:
    tokens = [*metadata[PREFIX + "tokens"], "<tool>", "<tool>x", "\t\t"]
    types = [*metadata[PREFIX + "token_type"], 4, 4, 4]
    tokenizer = tokenizer_from_gguf(
        metadata | {PREFIX + "tokens": tokens, PREFIX + "token_type": types}
    )
    first = len(metadata[PREFIX + "tokens"])
    assert tokenizer.encode("<tool>x<tool><tool\t\t")[:2] == [first + 1, first]
    assert tokenizer.encode("\t\t") == [first + 2]
    assert tokenizer.token_bytes(first) == b"<tool>"


def test_of_tokens_spelled_alike_the_first_counts(metadata: Metadata) -> None:
    tokens = [*metadata[PREFIX + "tokens"], *metadata[PREFIX + "tokens"]]
    types = [*metadata[PREFIX + "token_type"], *metadata[PREFIX + "token_type"]]
    twice = tokenizer_from_gguf(
        metadata | {PREFIX + "tokens": tokens, PREFIX + "token_type": types}
    )
    once = tokenizer_from_gguf(metadata)
    text = "<|im_start|>Hello, world<|im_end|>"
    assert twice.encode(text) == once.encode(text)
    assert twice.token_id("<|im_end|>") == 2
    assert twice.eos_ids == once.eos_ids


def test_ends_of_turns_are_control_tokens_even_if_the_file_says_normal(metadata: Metadata) -> None:
    normal = [1] * len(metadata[PREFIX + "tokens"])
    tokenizer = tokenizer_from_gguf(metadata | {PREFIX + "token_type": normal})
    assert tokenizer.special_ids == {0, 2}
    assert 2 not in tokenizer.encode("<|im_end|>")


def test_harmony_ends_messages_with_a_token_that_does_not_end_the_turn(metadata: Metadata) -> None:
    tokens = [*metadata[PREFIX + "tokens"], "<|end|>", "<|return|>", "<|call|>"]
    types = [*metadata[PREFIX + "token_type"], 3, 3, 3]
    tokenizer = tokenizer_from_gguf(
        metadata | {PREFIX + "tokens": tokens, PREFIX + "token_type": types}
    )
    assert tokenizer.eos_ids == {0, 2, len(tokens) - 2, len(tokens) - 1}


def test_kinds_we_do_not_have_are_named(metadata: Metadata) -> None:
    for kind in ("bert", "t5", "rwkv", ""):
        with pytest.raises(UnsupportedModelError, match=repr(kind)):
            tokenizer_from_gguf(metadata | {PREFIX + "model": kind})
    with pytest.raises(UnsupportedModelError, match="'new-pre'"):
        tokenizer_from_gguf(metadata | {PREFIX + "pre": "new-pre"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("merges", None),
        ("merges", ["nospace"]),
        ("merges", ["not here"]),
        ("merges", [1]),
        ("tokens", {"a": 1}),
        ("model", 3),
        ("eos_token_id", 1.5),
        ("add_bos_token", "yes"),
        ("tokens", ["\ud800"]),
    ],
)
def test_malformed_metadata(metadata: Metadata, name: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=re.compile("tokenizer")):
        tokenizer_from_gguf(metadata | {PREFIX + name: value})


def _alphabet() -> dict[int, str]:
    return {byte: char for char, byte in byte_level_alphabet().items()}


def _merges_of(word: str) -> list[tuple[str, str]]:
    spelled = "".join(_alphabet()[byte] for byte in word.encode())
    return [(spelled[:i], spelled[i]) for i in range(1, len(spelled))]
