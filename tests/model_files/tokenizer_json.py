"""Writes tokenizer.json and tokenizer_config.json in Hugging Face's form, from GGUF's metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gguf import TokenType

from model_files.model import Model, Vocabulary
from webllm.text.pre_tokenizers import PRE_TOKENIZERS

ADDED = (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN, TokenType.UNUSED)
SPACE, MARK = " ", "▁"
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


def _spellings(vocabulary: Vocabulary) -> list[str]:
    """Returns the tokens as Hugging Face spells them; GGUF has spaces in user-defined ones."""
    tokens = vocabulary.tokens[: vocabulary.num_active]
    if vocabulary.scores is None:
        return tokens
    return [
        text.replace(SPACE, MARK) if kind == TokenType.USER_DEFINED else text
        for text, kind in zip(tokens, vocabulary.types, strict=False)
    ]


def _added(vocabulary: Vocabulary) -> dict[int, dict[str, Any]]:
    """Returns the added tokens by id."""
    return {
        token_id: {
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind in SPECIAL,
        }
        for token_id, text in enumerate(_spellings(vocabulary))
        if (kind := vocabulary.types[token_id]) in ADDED
    }


def _document(vocabulary: Vocabulary, parts: dict[str, Any]) -> dict[str, Any]:
    added = [{"id": token_id} | token for token_id, token in _added(vocabulary).items()]
    head = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added}
    return head | parts


def _model(**settings: object) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
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
    vocab = {text: i for i, text in enumerate(_spellings(vocabulary))}
    for token_id in sorted(_added(vocabulary), reverse=True):
        if token_id != len(vocab) - 1:
            break
        del vocab[vocabulary.tokens[token_id]]  # added tokens at the end stand in their list alone
    parts = {
        "normalizer": {"type": "NFC"} if pre.nfc else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, to_bytes]},
        "post_processor": to_bytes,
        "decoder": to_bytes | {"use_regex": True},
        "model": _model(
            vocab=vocab,
            ignore_merges=pre.ignore_merges,
            merges=[merge.split(" ", 1) for merge in vocabulary.merges or []],
        ),
    }
    return _document(vocabulary, parts)


def _sentencepiece(vocabulary: Vocabulary) -> dict[str, Any]:
    """Returns Gemma's form: spaces are replaced, and scores have become an order of merges."""
    tokens = vocabulary.tokens
    bos = vocabulary.ids["bos"]
    texts = [
        ([{"SpecialToken": {"id": tokens[bos], "type_id": i}}] if vocabulary.add_bos else [])
        + [{"Sequence": {"id": name, "type_id": i}}]
        for i, name in enumerate("AB")
    ]
    parts = {
        "normalizer": {"type": "Replace", "pattern": {"String": SPACE}, "content": MARK},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": SPACE},
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
                {"type": "Replace", "pattern": {"String": MARK}, "content": SPACE},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": _model(
            vocab={text: i for i, text in enumerate(_spellings(vocabulary))},
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
    spellings = _spellings(vocabulary)
    ids = {text: i for i, text in enumerate(spellings)}
    found: list[tuple[float, int, int, str, str]] = []
    for text, kind, score in zip(spellings, vocabulary.types, vocabulary.scores, strict=False):
        pairs = [(text[:i], text[i:]) for i in range(1, len(text))]
        known = [(ids[a], ids[b], a, b) for a, b in pairs if a in ids and b in ids]
        first = 0.0 if kind == TokenType.USER_DEFINED else score  # GGUF has -1000
        found += [(first, len(a), len(b), a, b) for *_, a, b in sorted(known)]
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
