"""The lower bound of a text's tokens, and the small steps in which long texts are tokenized."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache, partial
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_text_json import CONFIG, DOCUMENT, REFERENCE
from test_text_json_without_library import DOCUMENTS, own
from text_references import PREFIX, TEXTS, byte_level_metadata, train_sentencepiece

from webllm.text import gguf_tokenizer
from webllm.text.gguf_tokenizer import tokenizer_from_gguf
from webllm.text.json_tokenizer import tokenizer_from_json
from webllm.text.tokenizer import Tokenizer
from webllm.text.vocabulary import byte_level_alphabet

NUM_CHARS = 20_000


def without_library(pre: str) -> Tokenizer:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf_tokenizer, "has_library", lambda: False)
        return tokenizer_from_gguf(byte_level_metadata(REFERENCE, pre))


def without_control_characters() -> Tokenizer:
    """Makes a tokenizer that drops some bytes, which have no token, as in SmolLM2's vocabulary."""
    metadata = byte_level_metadata(REFERENCE)
    tokens: list[str] = metadata[PREFIX + "tokens"]  # type: ignore[assignment]
    chars = {char for char, byte in byte_level_alphabet().items() if byte in (4, 6, 0xC0, 0xF1)}
    metadata[PREFIX + "tokens"] = [f"[{t}]" if t in chars else t for t in tokens]
    return tokenizer_from_gguf(metadata)


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "library": cache(lambda: tokenizer_from_gguf(byte_level_metadata(REFERENCE))),
    "own": cache(lambda: without_library("gpt-2")),
    "own, several patterns": cache(lambda: without_library("deepseek-v3")),
    "nfc": cache(lambda: without_library("qwen2")),
    "sentencepiece": cache(lambda: tokenizer_from_gguf(train_sentencepiece())),
    "dropping": cache(without_control_characters),
    "json": cache(lambda: tokenizer_from_json(DOCUMENT, CONFIG)),
    **{name: cache(partial(own, DOCUMENTS[name])) for name in ("trained", "nfc of json", "added")},
    **{
        name: cache(partial(own, DOCUMENTS[name]))
        for name in ("gemma", "llama", "several normalizers")
    },
}
IN_STEPS = ["own", "own, several patterns", "nfc", "sentencepiece", "trained", "gemma"]
WITHOUT_BOUND = ["added", "several normalizers"]
every_tokenizer = pytest.mark.parametrize("name", TOKENIZERS)


def check_bound(tokenizer: Tokenizer, text: str) -> None:
    guarded = tokenizer.guard(text)
    for given_, token_ids in (
        (text, tokenizer.encode(text, add_special=False)),
        (text, tokenizer.encode(text, parse_special=True, add_special=False)),
        (guarded, tokenizer.encode_prompt(guarded)),
        (text, tokenizer.encode_prompt(text)),
    ):
        assert tokenizer.min_tokens(given_) <= len(token_ids)


@every_tokenizer
def test_no_text_has_fewer_tokens_than_its_bound(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    words = [tokenizer.decode([i], skip_special=False) for i in range(tokenizer.vocab_size)]
    longest = sorted(words, key=len)[-20:]
    texts = [*TEXTS, *(word * 50 for word in longest), "".join(longest) * 9, "<|im_start|>" * 99]
    texts += ["\4" * 500, "a\6" * 300, "\U00040000" * 99, "\ud83d\ude00" * 99, "\udc00" * 99]
    # Three accents on one letter, jamo, and a sign that is the letter K.
    texts += [normalize("NFD", "\u1f82\uac01") * 200, "\u212a" * 500, "\u0344" * 300, " " * 999]
    for text in texts:
        check_bound(tokenizer, text)


@every_tokenizer
@given(st.text(max_size=300), st.integers(1, 20))
def test_no_made_up_text_does(name: str, text: str, times: int) -> None:
    check_bound(TOKENIZERS[name](), text * times)


@every_tokenizer
def test_long_texts_have_a_bound_where_nothing_is_dropped(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    bound = tokenizer.min_tokens("word " * 100_000)
    assert (bound > 1000) == (name not in WITHOUT_BOUND)
    assert (tokenizer.chars_per_token is None) == (name in WITHOUT_BOUND)


def test_a_vocabulary_without_bytes_has_no_bound() -> None:
    metadata = byte_level_metadata(REFERENCE)
    tokens: list[str] = metadata[PREFIX + "tokens"]  # type: ignore[assignment]
    alphabet = byte_level_alphabet()
    metadata[PREFIX + "tokens"] = [f"[{t}]" if alphabet.get(t) == 0x80 else t for t in tokens]
    metadata[PREFIX + "merges"] = []
    tokenizer = tokenizer_from_gguf(metadata)
    assert tokenizer.chars_per_token is None
    assert tokenizer.min_tokens("\u0400" * 10_000) == 0


def test_no_character_decomposes_into_more_than_four() -> None:
    """The bound of tokenizers that normalize to NFC relies on this."""
    chars = (chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)
    assert max(len(normalize("NFD", char)) for char in chars) == 4


@pytest.mark.parametrize("name", IN_STEPS)
@pytest.mark.parametrize(
    "unit", ["a", "ab", " ", "\n", "7", "word ", "<", "<|im_", "数", "é\u0301", "A", "'s", "\x00"]
)
def test_no_step_does_much(name: str, unit: str) -> None:
    """This holds for a single word, no words, or many beginnings of special tokens."""
    tokenizer = TOKENIZERS[name]()
    text = unit * (NUM_CHARS // len(unit))
    num_steps = sum(1 for _ in tokenizer.encode_prompt_steps(text))
    assert num_steps >= len(text) // 1024
    assert len(tokenizer.encode(text)) >= tokenizer.min_tokens(text)


@pytest.mark.parametrize("name", [*IN_STEPS, "library"])
@pytest.mark.parametrize("unit", ["<", "<|im_", "<|im_end|>"])
def test_no_step_of_a_guard_does_much(name: str, unit: str) -> None:
    tokenizer = TOKENIZERS[name]()
    text = unit * (NUM_CHARS // len(unit))
    num_steps = sum(1 for _ in tokenizer.guard_steps(text))
    tries = 0 if unit == "<" else NUM_CHARS // len(unit)  # "<<" begins no token
    if name not in ("sentencepiece", "gemma"):  # they have no such tokens
        assert num_steps >= tries // 1024


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_ends_of_a_long_text_have_the_tokens_of_the_whole(name: str) -> None:
    """A shifting context window keeps these ends."""
    tokenizer = TOKENIZERS[name]()
    text = " ".join(TEXTS[:12]) * 4
    whole = tokenizer.encode(text, add_special=False)
    if tokenizer.chars_per_token is not None:
        num_chars = tokenizer.chars_per_token * (20 + 16)
        head = tokenizer.encode(text[:num_chars], add_special=False)
        tail = tokenizer.encode(text[-num_chars:], add_special=False)
        assert (head[:20], tail[-20:]) == (whole[:20], whole[-20:])
