"""Mutates tokenizers and chat templates and checks that they raise only WebLLMErrors.

    python tests/fuzz/fuzz_text.py --count 100000 [--seed 0]

Input number i of a seed is always the same. Three kinds alternate: `tokenizer.json` documents with
changed bytes and values, GGUF tokenizer metadata with changed values, and chat templates made of
pieces of Jinja. Inputs that load are used: they encode texts, decode ids, render templates.
"""

import argparse
import copy
import json
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from unittest.mock import patch

from webllm.errors import WebLLMError
from webllm.text import json_tokenizer
from webllm.text.chat_template import ChatTemplate
from webllm.text.detokenizer import StreamingDetokenizer
from webllm.text.gguf_tokenizer import tokenizer_from_gguf
from webllm.text.json_tokenizer import tokenizer_from_json
from webllm.text.pre_tokenizers import PRE_TOKENIZERS
from webllm.text.template_budget import TemplateLimits
from webllm.text.tokenizer import Tokenizer
from webllm.text.vocabulary import byte_level_alphabet

MAX_SECONDS = 2.0  # per input, on a busy machine
LIMITS = TemplateLimits(steps=3_000, seconds=0.5, work_chars=100_000)
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**31, 2**32 - 1, 2**64, 1.5, float("nan"), float("inf")),
    *("", "a", " ", "▁", "Ġ", "\x00", "\ud800", "<0x41>", "<0xZZ>", "</s>", "<|im_end|>", "x" * 99),
    *([], {}, [[]], ["a"], [1], {"type": "ByteLevel"}, {"String": "▁"}),
]
TEXTS = ["", " ", "hello  wörld", "<s>a</s>", "<|im_end|>", "\ud83d\ude00 \ud800", "▁a\nb\0", "你"]
PATTERN = {"type": "Split", "pattern": {"Regex": r" ?\p{L}+|[^\s\p{L}]{1,3}|\s+(?!\S)"}}
TEMPLATE = {
    "single": [
        {"SpecialToken": {"id": "x", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ],
    "pair": [],
    "special_tokens": {"x": {"id": "x", "ids": [260], "tokens": ["x"]}},
}
PARTS: list[dict[str, Any]] = [  # that replace those of a document
    {},
    {"normalizer": {"type": "NFC"}, "post_processor": {"type": "TemplateProcessing", **TEMPLATE}},
    {
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                PATTERN | {"behavior": "Isolated", "invert": False},
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
            ],
        }
    },
    {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}},
]
JINJA = """
    {{ }} {% %} {%- -%} {# #} if else endif for in endfor set endset macro endmacro f ( ) [ ] { }
    messages tools ns namespace loop self range 'a' '%s' "b" 1 0 -1 9999 1.5 none true x m . , :
    | ~ + - * ** / // % == != < > and or not is defined string join replace tojson list length
    map select sort first last upper trim items split format _spend _flat _concat __class__
    unique max dictsort list int rejectattr odd divisibleby equalto in lower _compare _key changed
    raise_exception strftime_now content role break continue filter endfilter block endblock call
    endcall generation endgeneration recursive import include extends do caller varargs
"""
TEMPLATES = [
    "{% for m in messages %}{{ m.role ~ ': ' ~ m['content'] | trim }}{% endfor %}",
    "{% set ns = namespace(a=[]) %}{% for m in messages %}{% set ns.a = ns.a + [m] %}{% endfor %}"
    "{{ ns.a | tojson(indent=2) }}{{ '%s' % ns.a[-1].content }}{{ ns.a | map(attribute='x') }}",
    "{% macro f(x, d=0) %}{{ x }}{% if d < 9 %}{{ f(x, d + 1) }}{% endif %}{% endmacro %}{{ f(1) }}"
    "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list }}",
    "{% for i in range(99) %}{% set s %}{{ i * 'ab' }}{% endset %}{{ s.split('b') }}{% endfor %}",
]
MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": None},
]


def byte_level_metadata() -> dict[str, Any]:
    tokens = [*byte_level_alphabet(), "Ġh", "he", "ll", "hell", "<|im_end|>", "<tool>"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * 260 + [3, 4],
        "tokenizer.ggml.merges": ["Ġ h", "h e", "l l", "he ll"],
        "tokenizer.ggml.bos_token_id": 260,
        "tokenizer.ggml.eos_token_id": 260,
        "tokenizer.ggml.add_bos_token": True,
    }


def sentencepiece_metadata() -> dict[str, Any]:
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = ["▁", "a", "b", "ab", "▁a", "▁ab", "\n\n"]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", *bytes_, *pieces],
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(i) for i in range(7)],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * 6 + [4],
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_space_prefix": True,
    }


def json_document() -> dict[str, Any]:
    metadata = byte_level_metadata()
    tokens = metadata["tokenizer.ggml.tokens"]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
    return {
        "version": "1.0",
        "added_tokens": [{"id": 260, "content": tokens[260], "special": True, **flags}],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "byte_fallback": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": metadata["tokenizer.ggml.merges"],
        },
    }


def use_tokenizer(tokenizer: Tokenizer, rng: random.Random) -> None:
    for text in rng.sample(TEXTS, 3):
        ids = tokenizer.encode(text, parse_special=rng.random() < 0.5)
        tokenizer.decode(ids, skip_special=False)
    ids = [rng.randrange(-1, 300) for _ in range(12)]
    detokenizer = StreamingDetokenizer(tokenizer)
    streamed = "".join([*map(detokenizer.push, ids), detokenizer.flush()])
    assert streamed == tokenizer.decode(ids)


def mutate(value: Any, rng: random.Random) -> Any:
    """Returns `value` with one part replaced, removed or doubled."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: mutate(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        i = rng.randrange(len(value))
        return [
            *value[:i],
            *rng.choice(([], [mutate(value[i], rng)], value[i : i + 1] * 2)),
            *value[i + 1 :],
        ]
    return copy.deepcopy(rng.choice(VALUES))


def fuzz_json(rng: random.Random) -> None:
    document = json_document() | rng.choice(PARTS)
    for _ in range(rng.randrange(3)):
        document = mutate(document, rng)
    data = bytearray(json.dumps(document).encode())
    for _ in range(rng.choice([0, 0, 1, 4])):
        position = rng.randrange(len(data) or 1)
        data[position : position + rng.randrange(3)] = rng.choice(
            [b"", b'"', b"{", b"\xff", b"9", b","]
        )
    config = rng.choice([None, b"{}", b'{"bos_token": "<|im_end|>"}', bytes(data[:50])])
    with patch.object(json_tokenizer, "has_library", lambda: False), suppress(WebLLMError):
        use_tokenizer(tokenizer_from_json(bytes(data), config), rng)
    use_tokenizer(tokenizer_from_json(bytes(data), config), rng)


def fuzz_gguf(rng: random.Random) -> None:
    metadata = rng.choice([byte_level_metadata, sentencepiece_metadata])()
    metadata["tokenizer.ggml.pre"] = rng.choice(list(PRE_TOKENIZERS))
    for _ in range(rng.randrange(4)):
        metadata = mutate(metadata, rng)
    use_tokenizer(tokenizer_from_gguf(metadata if isinstance(metadata, dict) else {}), rng)


def fuzz_template(rng: random.Random) -> None:
    if rng.random() < 0.5:
        source = " ".join(rng.choices(JINJA.split(), k=rng.randrange(1, 30)))
    else:
        source = rng.choice(TEMPLATES)
        for _ in range(rng.randrange(1, 4)):
            start = rng.randrange(len(source) + 1)
            source = source[:start] + rng.choice(JINJA.split()) + source[start + rng.randrange(4) :]
    template = ChatTemplate(source, bos_token="<s>", limits=LIMITS)
    template.render(MESSAGES, tools=rng.choice([None, [{"function": {"name": "f"}}]]))


KINDS: Sequence[Callable[[random.Random], None]] = (fuzz_json, fuzz_gguf, fuzz_template)


def fuzz(count: int, seed: int = 0) -> Counter[str]:
    """Runs `count` inputs; returns the number of each outcome, such as "fuzz_json ok"."""
    outcomes: Counter[str] = Counter()
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        start = time.monotonic()
        try:
            kind(random.Random(f"{seed} {number}"))
            outcome = "ok"
        except WebLLMError as error:
            outcome = type(error).__name__
        except BaseException:
            print(f"input {number} of seed {seed} ({kind.__name__})", file=sys.stderr)
            raise
        seconds = time.monotonic() - start
        assert seconds < MAX_SECONDS, f"input {number} of seed {seed} took {seconds:.1f} s"
        outcomes[f"{kind.__name__} {outcome}"] += 1
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    for outcome, number in sorted(fuzz(options.count, options.seed).items()):
        print(f"{number:8} {outcome}")


if __name__ == "__main__":
    main()
