"""Writes tokenizer.json and tokenizer_config.json in Hugging Face's form, from GGUF's metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gguf import TokenType

from model_files.model import Model, Vocabulary
from webllm.text.pre_tokenizers import PRE_TOKENIZERS

ADDED = (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN, TokenType.UNUSED)
SPECIAL = (TokenType.CONTROL, TokenType.UNKNOWN)
CLASSES = {
    "llama": "PreTrainedTokenizerFast",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "gemma3_text": "GemmaTokenizer",
}


def tokenizer_files(model: Model) -> dict[str, bytes]:
    """Returns the files by name. Tokens that only pad the embedding are left out."""
    vocabulary = model.vocabulary
    is_spm = vocabulary.scores is not None
    document = _sentencepiece(vocabulary) if is_spm else _byte_level(vocabulary)
    files = {"tokenizer.json": document, "tokenizer_config.json": _config(model)}
    return {
        name: json.dumps(content, ensure_ascii=False, indent=indent).encode()
        for (name, content), indent in zip(files.items(), (None, 2), strict=True)
    }


def _added(vocabulary: Vocabulary) -> dict[int, dict[str, Any]]:
    """Returns the added tokens by id."""
    return {
        token_id: {
            "content": vocabulary.tokens[token_id],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind in SPECIAL,
        }
        for token_id, kind in enumerate(vocabulary.types[: vocabulary.num_active])
        if kind in ADDED
    }


def _document(vocabulary: Vocabulary, parts: dict[str, Any]) -> dict[str, Any]:
    added = [{"id": token_id} | token for token_id, token in _added(vocabulary).items()]
    head = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added}
    return head | parts


def _model(vocabulary: Vocabulary, **settings: object) -> dict[str, Any]:
    ids = {text: i for i, text in enumerate(vocabulary.tokens[: vocabulary.num_active])}
    for token_id in sorted(_added(vocabulary), reverse=True):
        if token_id != len(ids) - 1:
            break
        del ids[vocabulary.tokens[token_id]]  # added tokens at the end stand in their list alone
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": ids,
        **settings,
    }


def _byte_level(vocabulary: Vocabulary) -> dict[str, Any]:
    pre = PRE_TOKENIZERS[vocabulary.pre]
    to_bytes = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": False,
    }
    splits: list[dict[str, Any]] = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in pre.patterns
    ]
    if vocabulary.pre == "smollm":  # Hugging Face writes the same with parts of its own
        splits = [{"type": "Digits", "individual_digits": True}]
        to_bytes |= {"trim_offsets": True, "use_regex": True}
    parts = {
        "normalizer": {"type": "NFC"} if pre.nfc else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, to_bytes]},
        "post_processor": to_bytes,
        "decoder": to_bytes | {"use_regex": True},
        "model": _model(
            vocabulary,
            ignore_merges=pre.ignore_merges,
            merges=[merge.split(" ", 1) for merge in vocabulary.merges or []],
        ),
    }
    return _document(vocabulary, parts)


def _sentencepiece(vocabulary: Vocabulary) -> dict[str, Any]:
    """Returns Gemma's form: spaces are replaced, and scores have become an order of merges."""
    tokens = vocabulary.tokens
    mark, space = "▁", " "
    bos = vocabulary.ids["bos"]
    texts = [
        ([{"SpecialToken": {"id": tokens[bos], "type_id": i}}] if vocabulary.add_bos else [])
        + [{"Sequence": {"id": name, "type_id": i}}]
        for i, name in enumerate("AB")
    ]
    parts = {
        "normalizer": {"type": "Replace", "pattern": {"String": space}, "content": mark},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": space},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": texts[0],
            "pair": texts[0] + texts[1],
            "special_tokens": {
                tokens[bos]: {"id": tokens[bos], "ids": [bos], "tokens": [tokens[bos]]}
            },
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": mark}, "content": space},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": _model(
            vocabulary,
            unk_token=tokens[vocabulary.ids["unknown"]],
            fuse_unk=True,
            byte_fallback=True,
            merges=list(_merges(vocabulary)),
        ),
    }
    return _document(vocabulary, parts)


def _merges(vocabulary: Vocabulary) -> Iterator[tuple[str, str]]:
    """Yields the pairs that make tokens, those of high scores first, as transformers orders them.

    Follows `generate_merges` of its `convert_slow_tokenizer`.
    """
    assert vocabulary.scores is not None
    ids = {text: i for i, text in enumerate(vocabulary.tokens)}
    found: list[tuple[float, int, int, str, str]] = []
    for token_id, text in enumerate(vocabulary.tokens):
        pairs = [(text[:i], text[i:]) for i in range(1, len(text))]
        known = [
            (ids[left], ids[right], left, right)
            for left, right in pairs
            if {left, right} <= ids.keys()
        ]
        score = vocabulary.scores[token_id]
        found += [(score, len(left), len(right), left, right) for *_, left, right in sorted(known)]
    found.sort(key=lambda pair: pair[:3], reverse=True)
    yield from ((left, right) for *_, left, right in found)


def _config(model: Model) -> dict[str, Any]:
    vocabulary = model.vocabulary
    names = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
    named = {names[name]: vocabulary.tokens[token_id] for name, token_id in vocabulary.ids.items()}
    config: dict[str, Any] = {
        "added_tokens_decoder": {str(i): token for i, token in _added(vocabulary).items()},
        **named,
        "add_bos_token": vocabulary.add_bos,
        "clean_up_tokenization_spaces": False,
        "model_max_length": model.config["max_position_embeddings"],
        "tokenizer_class": CLASSES[model.model_type],
    }
    if vocabulary.chat_template is not None:
        config["chat_template"] = vocabulary.chat_template
    return config
