# ruff: noqa: RUF001 (the texts are meant to be in many scripts)
"""Makes `tokenizers.json`: texts and the ids that Hugging Face `transformers` gives them.

Run `pip install transformers==5.23.0 gguf sentencepiece` in a separate environment (torch is not
needed), then

    python tests/golden/make_tokenizers.py smollm2.gguf gemma3-270m.gguf > tokenizers.json

`transformers` builds its own tokenizer from the same GGUF metadata, an independent reading of it.
Its tokenizers always parse special tokens and add none here.
"""

import json
import sys
from pathlib import Path

import transformers
from gguf import GGUFReader
from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer

TEXTS = [
    "",
    " ",
    "Hello, world!",
    "  leading and trailing  ",
    "one two  three   four    five",
    "tab\tand\ttabs\t\t\tand\r\nCRLF\n\n\nnewlines\n",
    "\n",
    "\n\n \n  \n\t\n",
    "def fib(n: int) -> int:\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\n",
    "for (let i = 0; i < 10; ++i) { a[i] ??= `${i}`; } // 100%",
    "I'm sure they've said it's what we'd do; DON'T SHOUT, IT'S RUDE.",
    "3.14159 1,000,000 0x1F 1e-9 12345678901234567890 ½ Ⅷ ²",
    "Supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    "a" * 70,
    "你好，世界。机器学习很有趣！",
    "こんにちは世界、カタカナとひらがな。",
    "안녕하세요 세계",
    "مرحبا بالعالم، كيف حالك؟ ١٢٣",
    "שלום עולם",
    "Привет, мир! Как дела?",
    "Γειά σου Κόσμε",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "café e\u0301te\u0301 naïve Zürich Łódź İstanbul ﬁne",
    "emoji 😀 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 1️⃣",
    "mixed 中文 and English и русский مع عربي 123",
    "\x00\x01\x02 control \x1b[31mred\x1b[0m \x7f",
    "zero\u200bwidth\u200djoin\ufeffbom no\u00a0break \u2028line \u3000wide",
    "\U0001f9ff\U00020000\U0010fffd private \ue000",
    "https://example.com/a/b?q=1&r=%20#frag user@example.com",
    '{"key": [1, 2.5, null, true], "nested": {"a": "b\\n"}}',
    "<div class='x'>\n\t<p>Hi &amp; bye</p>\n</div>",
    "$$\\int_0^\\infty e^{-x^2}\\,dx = \\frac{\\sqrt{\\pi}}{2}$$",
    "look-alikes: <|im_end <end_of_turn <s> < |im_end|> <0x0A> ▁▁ Ġ",
]
SPECIAL_TEXTS = {
    "smollm2": ["<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "a <|im_end|> b"],
    "gemma3-270m": [
        "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
        "a <end_of_turn> b",
    ],
}


def main(paths: list[str]) -> None:
    golden = {"made_with": f"transformers {transformers.__version__}", "texts": TEXTS, "models": {}}
    for path in map(Path, paths):
        fields = GGUFReader(path).fields
        ggml = {
            key.removeprefix("tokenizer.ggml."): field.contents()
            for key, field in fields.items()
            if key.startswith("tokenizer.ggml.")
        }
        ggml |= {"tokenizer_type": ggml["model"], "pre_tokenizer_type": ggml["pre"]}
        architecture = fields["general.architecture"].contents()
        tokenizer, _ = convert_gguf_tokenizer(architecture, ggml)
        golden["models"][path.stem] = {
            name: [[text, tokenizer.encode(text, add_special_tokens=False).ids] for text in texts]
            for name, texts in (("plain", TEXTS), ("special", SPECIAL_TEXTS[path.stem]))
        }
    del golden["texts"]
    json.dump(golden, sys.stdout, ensure_ascii=True, separators=(",", ":"))
    print()


main(sys.argv[1:])
