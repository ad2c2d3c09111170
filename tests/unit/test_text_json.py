"""Compares `tokenizer.json`, byte-level and SentencePiece-like, with the `tokenizers` library."""

import json
from typing import Any

import pytest
from text_references import TEXTS, train_byte_level

from webllm.errors import CheckpointError, UnsupportedModelError
from webllm.text.json_tokenizer import tokenizer_from_json

REFERENCE = train_byte_level()
DOCUMENT = REFERENCE.to_str().encode()
CONFIG = json.dumps(
    {"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>", "lstrip": False}}
).encode()
# Llama 2's form: the normalizer adds a space, missing characters become bytes.
LLAMA: dict[str, Any] = {
    "version": "1.0",
    "added_tokens": [
        {"id": i, "content": content, "special": True, "normalized": False}
        | dict.fromkeys(["single_word", "lstrip", "rstrip"], False)
        for i, content in enumerate(["<unk>", "<s>", "</s>"])
    ],
    "normalizer": {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    },
    "pre_tokenizer": None,
    "post_processor": None,
    "decoder": None,
    "model": {
        "type": "BPE",
        "byte_fallback": True,
        "unk_token": "<unk>",
        "fuse_unk": True,
        "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2}
        | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
        | {"▁": 259, "h": 260, "i": 261, "▁h": 262, "▁hi": 263},
        "merges": [["▁", "h"], ["▁h", "i"]],
    },
}


def test_byte_level_agrees_with_the_library() -> None:
    tokenizer = tokenizer_from_json(DOCUMENT, CONFIG)
    assert tokenizer.vocab_size == REFERENCE.get_vocab_size()
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert ids == REFERENCE.encode(text).ids
        assert tokenizer.decode(ids) == text == REFERENCE.decode(ids)


def test_special_tokens_are_parsed_only_on_demand() -> None:
    tokenizer = tokenizer_from_json(DOCUMENT, CONFIG)
    assert tokenizer.encode("<|im_end|>", parse_special=True) == [2]
    assert 2 not in tokenizer.encode("<|im_end|>")
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (1, frozenset({0, 2}))
    assert tokenizer.special_ids == {0, 1, 2}
    assert tokenizer_from_json(DOCUMENT).bos_id is None
    assert tokenizer_from_json(DOCUMENT, CONFIG, eos_ids=[7]).eos_ids == {0, 2, 7}


def test_sentencepiece_like_documents() -> None:
    tokenizer = tokenizer_from_json(json.dumps(LLAMA).encode(), b'{"bos_token": "<s>"}')
    assert tokenizer.encode("hi é") == [263, 259, 3 + 0xC3, 3 + 0xA9]
    assert tokenizer.decode([263, 259, 3 + 0xC3, 3 + 0xA9]) == "hi é"
    assert tokenizer.add_space_prefix
    assert tokenizer.token_bytes(263) == b" hi"
    assert tokenizer.token_bytes(3 + 0xC3) == b"\xc3"
    assert tokenizer.eos_ids == {2}


def test_added_tokens_that_are_not_special_are_plain_text() -> None:
    document = json.loads(DOCUMENT)
    new_id = REFERENCE.get_vocab_size()
    added = {"id": new_id, "content": "<think>", "special": False, "normalized": False}
    flags = dict.fromkeys(["single_word", "lstrip", "rstrip"], False)
    document["added_tokens"].append(added | flags)
    tokenizer = tokenizer_from_json(json.dumps(document).encode())
    assert tokenizer.token_bytes(new_id) == b"<think>"
    assert tokenizer.encode("<think>") == [new_id]
    assert tokenizer.vocab_size == new_id + 1


def test_word_piece_is_not_supported() -> None:
    document = {
        "version": "1.0",
        "added_tokens": [],
        "model": {"type": "WordPiece", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"}
        | {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
    }
    with pytest.raises(UnsupportedModelError, match="WordPiece"):
        tokenizer_from_json(json.dumps(document).encode())


def _without(key: str) -> dict[str, Any]:
    return {k: v for k, v in json.loads(DOCUMENT).items() if k != key}


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps(_without("model")).encode(),
        json.dumps(_without("model") | {"model": {"type": "BPE", "vocab": {"a": -1}}}).encode(),
        json.dumps(
            _without("model") | {"model": {"type": "BPE", "vocab": {"a": 2**31}, "merges": []}}
        ).encode(),
    ],
)
def test_malformed_documents(document: bytes) -> None:
    with pytest.raises(CheckpointError):
        tokenizer_from_json(document)


@pytest.mark.parametrize("config", [b"{", b'{"bos_token": 3}', b"[]"])
def test_malformed_configs(config: bytes) -> None:
    with pytest.raises(CheckpointError, match="config"):
        tokenizer_from_json(DOCUMENT, config)
