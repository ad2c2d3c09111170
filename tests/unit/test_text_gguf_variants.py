"""GGUF files that say less than others, or say it in another form."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from test_text_json_without_library import sentencepiece
from text_references import (
    PREFIX,
    TEXTS,
    byte_level_metadata,
    train_byte_level,
    train_sentencepiece,
)

from webllm.errors import CheckpointError
from webllm.text.gguf_tokenizer import tokenizer_from_gguf
from webllm.text.json_tokenizer import tokenizer_from_json
from webllm.text.model_template import template_from_gguf
from webllm.text.pre_tokenizers import PRE_TOKENIZERS, recognized

Metadata = dict[str, Any]
BYTE_LEVEL: Metadata = byte_level_metadata(train_byte_level())
USER = [{"role": "user", "content": "hi"}]


def with_fields(metadata: Metadata, **fields: object) -> Metadata:
    """Replaces fields; None removes one."""
    changed = metadata | {PREFIX + name: value for name, value in fields.items()}
    return {key: value for key, value in changed.items() if value is not None}


class _Vocabulary(Sequence[str]):
    """A vocabulary of which one token is known."""

    def __init__(self, text: str, token_id: int, num_tokens: int) -> None:
        self._known, self._num_tokens = {token_id: text}, num_tokens

    def __len__(self) -> int:
        return self._num_tokens

    def __getitem__(self, token_id: Any) -> Any:
        return self._known.get(token_id, "")


@pytest.mark.parametrize(
    ("text", "token_id", "num_tokens", "name"),
    [
        ("<|begin_of_text|>", 128000, 128256, "llama-bpe"),
        ("<|endoftext|>", 151643, 151936, "qwen2"),
        ("<|endoftext|>", 50256, 50257, "gpt-2"),
        ("<|im_start|>", 1, 49152, "smollm"),
        ("<\uff5cbegin\u2581of\u2581sentence\uff5c>", 0, 129280, "deepseek-v3"),
        ("<|endoftext|>", 100257, 100352, None),
        ("", 0, 5, None),
    ],
)
def test_a_vocabulary_is_recognized(
    text: str, token_id: int, num_tokens: int, name: str | None
) -> None:
    found = recognized(_Vocabulary(text, token_id, num_tokens))
    assert found == name
    assert name is None or name in PRE_TOKENIZERS


def test_a_known_vocabulary_without_pre_is_cut_as_its_family(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The trained vocabulary has "<|im_start|>" as token 1, as SmolLM2's has."""
    for pre in (None, ""):
        tokenizer = tokenizer_from_gguf(with_fields(BYTE_LEVEL, pre=pre))
        smollm = tokenizer_from_gguf(with_fields(BYTE_LEVEL, pre="smollm"))
        assert [tokenizer.encode(text) for text in TEXTS] == list(map(smollm.encode, TEXTS))
    assert not caplog.records


def test_an_unknown_vocabulary_without_pre_is_warned_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tokens = [f"{text}x" if "im_start" in text else text for text in BYTE_LEVEL[PREFIX + "tokens"]]
    metadata = with_fields(BYTE_LEVEL, tokens=tokens, pre=None)
    tokenizer = tokenizer_from_gguf(metadata)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "tokenizer.ggml.pre" in caplog.text
    default = tokenizer_from_gguf(metadata | {PREFIX + "pre": "default"})
    assert [tokenizer.encode(text) for text in TEXTS] == list(map(default.encode, TEXTS))


def test_several_end_tokens() -> None:
    tokenizer = tokenizer_from_gguf(with_fields(BYTE_LEVEL, eos_token_id=[7, 9, 2**32 - 1]))
    assert tokenizer.eos_ids == {0, 2, 7, 9}
    both = tokenizer_from_gguf(
        with_fields(BYTE_LEVEL, eos_token_id=[7, 9], add_eos_token=True, add_bos_token=False)
    )
    assert both.encode("") == [7]


def test_single_values_in_arrays_and_flags_as_numbers() -> None:
    metadata = with_fields(
        BYTE_LEVEL, pre=["smollm"], bos_token_id=[1], add_bos_token=1, add_eos_token=[0]
    )
    assert tokenizer_from_gguf(metadata).encode("") == [1]
    off = tokenizer_from_gguf(with_fields(metadata, add_bos_token=0, add_eos_token=1))
    assert off.encode("") == [2]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("add_bos_token", 2),
        ("add_bos_token", [1, 0]),
        ("eos_token_id", [1, "2"]),
        ("eos_token_id", [[1]]),
        ("pre", ["a", "b"]),
    ],
)
def test_malformed_fields(name: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=rf"tokenizer\.ggml\.{name}"):
        tokenizer_from_gguf(with_fields(BYTE_LEVEL, **{name: value}))


@pytest.mark.parametrize("none", [None, 2**32 - 1])
def test_bos_that_no_token_is_named_for(none: int | None, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = tokenizer_from_gguf(with_fields(BYTE_LEVEL, bos_token_id=none, add_bos_token=True))
    assert tokenizer.encode("") == []
    assert "tokenizer.ggml.bos_token_id" in caplog.text


def test_without_scores_neighbours_merge_from_the_left(caplog: pytest.LogCaptureFixture) -> None:
    tokens = ["<unk>", "a", "b", "ab", "ba", "aba"]
    metadata: Metadata = {PREFIX + "model": "llama", PREFIX + "tokens": tokens}
    flags = {PREFIX + "add_bos_token": False, PREFIX + "add_space_prefix": False}
    tokenizer = tokenizer_from_gguf(metadata | flags)
    assert tokenizer.encode("abab") == [5, 2]
    assert "tokenizer.ggml.scores" in caplog.text


def test_gemma4_merges_by_rank_inside_lines() -> None:
    """Against the `tokenizers` library, with the pieces that llama.cpp's pattern makes."""
    metadata = train_sentencepiece(user_defined_symbols=["\n\n"])
    document = sentencepiece(
        normalizer={"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        pre_tokenizer={"type": "Split", "pattern": {"Regex": "\n+"}, "behavior": "Isolated"}
        | {"invert": False},
    )
    ids: dict[str, int] = document["model"]["vocab"]
    tokens = [*ids, "\n\n", "\n\n\n\n"]
    gguf = with_fields(
        metadata,
        model="gemma4",
        tokens=tokens,
        token_type=[6 if text.startswith("<0x") else 1 for text in tokens],
        scores=None,
        merges=[f"{left} {right}" for left, right in document["model"]["merges"]],
        add_bos_token=False,
        add_space_prefix=None,
    )
    tokenizer = tokenizer_from_gguf(gguf)
    library = tokenizer_from_json(json.dumps(document).encode())
    for text in TEXTS:
        if "\n\n" not in text:
            assert tokenizer.encode(text) == library.encode(text, add_special=False), text
    first = len(ids)
    newline = tokenizer.encode("\n")
    assert tokenizer.encode("a\n\nb\n\n\n\nc\n\n\n") == [
        *tokenizer.encode("a"),
        first,
        *tokenizer.encode("b"),
        first + 1,
        *tokenizer.encode("c"),
        *newline * 3,
    ]


KEY = "tokenizer.chat_template"


@pytest.mark.parametrize(
    ("fields", "name", "prompt"),
    [
        ({KEY: ["one"]}, None, "one"),
        ({KEY: ["one", "two"]}, None, "one"),
        ({KEY: ["one", "two"], KEY + "s": ["tool_use", "default"]}, None, "two"),
        ({KEY: ["one", "two"], KEY + "s": ["tool_use", "default"]}, "tool_use", "one"),
        ({KEY: ["one", "two"], KEY + "s": ["tool_use", "default"]}, "rag", "two"),
        ({KEY: "one", KEY + ".tool_use": "two", KEY + "s": ["tool_use"]}, None, "one"),
        ({KEY: "one", KEY + ".tool_use": "two"}, "tool_use", "two"),
        ({KEY + ".rag": "two", KEY + "s": ["rag"]}, None, "two"),
        ({KEY: []}, None, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"),
    ],
)
def test_named_templates(fields: Metadata, name: str | None, prompt: str) -> None:
    metadata = BYTE_LEVEL | fields
    template = template_from_gguf(metadata, tokenizer_from_gguf(metadata), name)
    assert template is not None
    assert template.render(USER) == prompt


@pytest.mark.parametrize("source", [3, [1], [["a"]]])
def test_malformed_templates(source: object) -> None:
    metadata = BYTE_LEVEL | {KEY: source}
    with pytest.raises(CheckpointError, match="chat_template"):
        template_from_gguf(metadata, tokenizer_from_gguf(metadata))
