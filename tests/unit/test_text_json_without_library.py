"""Compares our reading of a `tokenizer.json` with the `tokenizers` library's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_text_json import DOCUMENT, LLAMA, REFERENCE
from text_references import PREFIX as GGML
from text_references import TEXTS, known_chars, ranked_merges, train_sentencepiece

from webllm.errors import CheckpointError, UnsupportedModelError
from webllm.text import json_tokenizer
from webllm.text.json_tokenizer import tokenizer_from_json
from webllm.text.pre_tokenizers import PRE_TOKENIZERS
from webllm.text.tokenizer import Tokenizer

Document = dict[str, Any]

FLAGS = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
BYTE_LEVEL: Document = json.loads(DOCUMENT)
TO_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
SPACES = [" a", "  b ", "▁x", "a ▁ b", "<s>", "<s> a</s>  b", "[T]", " [T] a", "x[T]\n y", "[S] s"]


def own(document: Document) -> Tokenizer:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_tokenizer, "has_library", lambda: False)
        return tokenizer_from_json(json.dumps(document).encode())


def byte_level(**parts: Any) -> Document:
    return BYTE_LEVEL | parts


def split(pattern: Document, behavior: str = "Isolated", invert: bool = False) -> Document:
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def sequence(key: str, *parts: Document) -> Document:
    return {"type": "Sequence", key: list(parts)}


def sentencepiece(**parts: Any) -> Document:
    """Returns a document of the form that converters make of a SentencePiece vocabulary."""
    metadata: Document = train_sentencepiece(split_by_whitespace=False)
    tokens: list[str] = metadata[GGML + "tokens"]
    ids = {text: i for i, text in enumerate(tokens)}
    scores = dict(zip(tokens, metadata[GGML + "scores"], strict=True))
    merges = ranked_merges(tokens, scores, tokens)
    added = [
        {"id": ids[text], "content": text, "special": True} | FLAGS for text in ("<s>", "</s>")
    ]
    model = LLAMA["model"] | {"vocab": ids, "merges": merges}
    return LLAMA | {"model": model, "added_tokens": added} | parts


def with_added(document: Document, *tokens: Document) -> Document:
    """Adds tokens that have no entry in the vocabulary of the model."""
    first = max(document["model"]["vocab"].values()) + 1
    added = [{"id": first + i, "special": False} | FLAGS | t for i, t in enumerate(tokens)]
    return document | {"added_tokens": [*document["added_tokens"], *added]}


def llama(**model: Any) -> Document:
    return LLAMA | {"model": LLAMA["model"] | {"merges": []} | model}


BYTE_PAIR = {"<0x41><0x42>": 300}
METASPACE = {"type": "Metaspace", "replacement": "▁", "split": True}
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}},
    ],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
    "special_tokens": {
        name: {"id": name, "ids": [token_id], "tokens": [name]}
        for name, token_id in {"<|im_start|>": 1, "<|im_end|>": 2}.items()
    },
}
DIGITS = {"type": "Digits", "individual_digits": True}
FALCON: list[Document] = [
    {"type": "Punctuation", "behavior": "Contiguous"},
    TO_BYTES | {"use_regex": True},
    {"type": "Digits", "individual_digits": False},
    split({"Regex": "[0-9][0-9][0-9]"}),
]
DOCUMENTS: dict[str, Document] = {
    "trained": BYTE_LEVEL,
    "nfc of json": byte_level(normalizer={"type": "NFC"}),
    "several normalizers": byte_level(
        normalizer=sequence(
            "normalizers",
            {"type": "NFKD"},
            {"type": "Prepend", "prepend": "e"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": r"\1 "},
        )
    ),
    "prefix space": byte_level(
        pre_tokenizer=sequence(
            "pretokenizers",
            split({"Regex": r"\p{N}{1,3}"}),
            TO_BYTES | {"add_prefix_space": True, "use_regex": True},
        )
    ),
    "digits": byte_level(
        pre_tokenizer=sequence("pretokenizers", DIGITS, TO_BYTES | {"use_regex": True})
    ),
    "falcon": byte_level(pre_tokenizer=sequence("pretokenizers", *FALCON)),
    "ignore_merges": byte_level(model=BYTE_LEVEL["model"] | {"ignore_merges": True}),
    "merges as text": byte_level(
        model=BYTE_LEVEL["model"] | {"merges": [" ".join(p) for p in BYTE_LEVEL["model"]["merges"]]}
    ),
    "affixes": byte_level(post_processor=sequence("processors", TEMPLATE, TO_BYTES)),
    "roberta": byte_level(
        post_processor={"type": "RobertaProcessing", "trim_offsets": True, "add_prefix_space": True}
        | {"sep": ["<|im_end|>", 2], "cls": ["<|im_start|>", 1]}
    ),
    **{
        f"{behavior} {invert}": byte_level(
            pre_tokenizer=sequence(
                "pretokenizers", split({"Regex": r"\s|'"}, behavior, invert), TO_BYTES
            )
        )
        for behavior in ["Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
        for invert in (False, True)
    },
    "added": with_added(
        byte_level(normalizer={"type": "NFC"}),
        {"content": "[T]", "lstrip": True, "rstrip": True},
        {"content": "[S]", "rstrip": True, "special": True},
        {"content": "café", "normalized": True},
        {"content": "<|im_start|>user"},
    ),
    "llama": sentencepiece(),
    "gemma": sentencepiece(
        normalizer={"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        pre_tokenizer=split({"String": " "}, "MergedWithPrevious"),
    ),
    **{
        f"metaspace {scheme}": sentencepiece(
            normalizer=None, pre_tokenizer=METASPACE | {"prepend_scheme": scheme}
        )
        for scheme in ("always", "never", "first")
    },
    "metaspace whole": sentencepiece(
        normalizer=None, pre_tokenizer=METASPACE | {"prepend_scheme": "first", "split": False}
    ),
    "added spaces": with_added(
        sentencepiece(), {"content": "[T]", "normalized": True}, {"content": "[S]", "special": True}
    ),
    "unknown": sentencepiece(
        model=sentencepiece()["model"] | {"byte_fallback": False, "fuse_unk": False}
    ),
    "unknown, fused": sentencepiece(model=sentencepiece()["model"] | {"byte_fallback": False}),
    **{
        f"words of {name}": byte_level(
            pre_tokenizer=sequence(
                "pretokenizers",
                *(split({"Regex": pattern}) for pattern in PRE_TOKENIZERS[name].patterns),
                TO_BYTES | {"use_regex": False},
            )
        )
        for name in ("llama3", "qwen2", "tekken", "gpt-4o", "deepseek-v3", "default")
    },
}
each_document = pytest.mark.parametrize("name", DOCUMENTS)


def check(name: str, texts: list[str]) -> None:
    document = DOCUMENTS[name]
    ours, library = own(document), tokenizer_from_json(json.dumps(document).encode())
    special = [token["content"] for token in document["added_tokens"]]
    for text in texts:
        assert ours.encode(text) == library.encode(text), text
        parsed = ours.encode(text, parse_special=True, add_special=False)
        assert parsed == library.encode(text, parse_special=True, add_special=False), text
        prompt = special[0].join([library.guard(text), text, library.guard(special[-1] + " a")])
        assert ours.guard(text) == library.guard(text), text
        assert ours.encode_prompt(prompt) == library.encode_prompt(prompt), prompt


@each_document
def test_ids_are_the_librarys(name: str) -> None:
    check(name, [*TEXTS, *SPACES, "cafe\u0301 café", "<|im_start|>user x", "x" * 300 + "é" * 300])


@pytest.mark.parametrize("name", ["words of llama3", "falcon", "added", "metaspace first", "llama"])
def test_ids_are_the_librarys_for_any_text(name: str) -> None:
    pieces = st.sampled_from([*SPACES, *"\n 0aé'", "<|im_end|>", "\u0301", "</s>", "café"])
    document = DOCUMENTS[name]
    ours, library = own(document), tokenizer_from_json(json.dumps(document).encode())

    @settings(max_examples=150, deadline=None)
    @given(st.lists(pieces | st.text(known_chars(), max_size=5), max_size=12).map("".join))
    def same(text: str) -> None:
        assert ours.encode(text) == library.encode(text)
        guarded = library.guard(text)
        assert ours.encode_prompt(guarded) == library.encode_prompt(guarded)
        assert ours.encode_prompt(text) == library.encode_prompt(text)

    same()


def test_only_the_first_piece_of_a_prompt_gets_the_first_space() -> None:
    for tokenizer in (own(DOCUMENTS["metaspace first"]), own(DOCUMENTS["metaspace whole"])):
        a = tokenizer.encode_prompt("</s>" + tokenizer.guard("a</s>"))
        assert tokenizer.decode(a, skip_special=False) == "</s>a</s>"


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({"normalizer": {"type": "Lowercase"}}, "normalizer 'Lowercase'"),
        ({"normalizer": {"type": "Precompiled"}}, "normalizer 'Precompiled'"),
        ({"pre_tokenizer": sequence("pretokenizers", {"type": "Whitespace"})}, "'Whitespace'"),
        ({"pre_tokenizer": split({"Regex": r"\w+"})}, r"'\\\\w'"),
        ({"pre_tokenizer": split({"Regex": r"(?:a+)+b"})}, r"'\)\+'"),
        ({"pre_tokenizer": split({"Regex": r"\p{Han}"})}, r"Han"),
        ({"pre_tokenizer": split({"Regex": "a" * 5000})}, "5000 characters"),
        ({"post_processor": {"type": "New"}}, "post-processor 'New'"),
        ({"model": BYTE_LEVEL["model"] | {"dropout": 0.1}}, "dropout 0.1"),
        ({"model": BYTE_LEVEL["model"] | {"end_of_word_suffix": "</w>"}}, "end_of_word_suffix"),
        ({"model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 0}}, "'Unigram'"),
        ({"model": BYTE_LEVEL["model"] | {"type": "WordLevel"}}, "'WordLevel'"),
        (with_added(BYTE_LEVEL, {"content": "x", "single_word": True}), "single_word"),
        (llama(vocab={"<0x41>": 0, "a": 1}), "1 tokens of bytes"),
        (llama(vocab=LLAMA["model"]["vocab"] | BYTE_PAIR, merges=["<0x41> <0x42>"]), "of a byte"),
        (
            {
                "pre_tokenizer": sequence(
                    "pretokenizers", TO_BYTES, METASPACE | {"prepend_scheme": "first"}
                )
            },
            "Metaspace",
        ),
    ],
)
def test_components_that_we_do_not_have_are_named(parts: Document, named: str) -> None:
    with pytest.raises(UnsupportedModelError, match=named):
        own(BYTE_LEVEL | parts)


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": 3},
        {"normalizer": {"type": "Prepend"}},
        {"pre_tokenizer": split({})},
        {"pre_tokenizer": split({"Regex": "("})},
        {"pre_tokenizer": split({"Regex": "a"}, "Sometimes")},
        {"pre_tokenizer": METASPACE | {"replacement": "__"}},
        {"post_processor": TEMPLATE | {"special_tokens": {}}},
        {"post_processor": TEMPLATE | {"single": []}},
        {"model": {"type": "BPE", "vocab": {"a": 0}}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a a"]}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "a", "a"]]}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": {"a": "a"}}},
    ],
)
def test_malformed_parts(parts: Document) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json|the tokenizer's pattern"):
        own(BYTE_LEVEL | parts)


def test_tokens_beyond_the_embedding_table_are_left_out() -> None:
    document = with_added(BYTE_LEVEL, {"content": "<image>", "special": True})
    num_tokens = REFERENCE.get_vocab_size()
    data = json.dumps(document).encode()
    assert tokenizer_from_json(data).vocab_size == num_tokens + 1
    cut = tokenizer_from_json(data, vocab_size=num_tokens)
    assert cut.vocab_size == num_tokens
    assert cut.token_id("<image>") is None
    assert tokenizer_from_json(data, vocab_size=num_tokens + 99).vocab_size == num_tokens + 1
