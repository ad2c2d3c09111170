"""The patterns that split text into words before byte-level BPE, by `tokenizer.ggml.pre`.

The names are llama.cpp's. The patterns (Oniguruma syntax, `\\p{..}` classes) are those of each
family's own `tokenizer.json`; `word_splitter` applies them in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_PUNCTUATION = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_PUNCTUATION_OR_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
# Words that begin in upper case and continue in lower case, or are all upper case (tekken, o200k).
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED_1 = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+"
_CASED_2 = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """The rules by which a family of tokenizers splits text into words.

    With `ignore_merges` a word that is in the vocabulary becomes that token without merging.
    `add_bos` is the default of `tokenizer.ggml.add_bos_token`. With `nfc` text is normalized to NFC
    first.
    """

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False
    nfc: bool = False


_LLAMA3_WORDS = "|".join([_CONTRACTIONS, _WORD, r"\p{N}{1,3}", _PUNCTUATION, _SPACES])
_QWEN2_WORDS = "|".join([_CONTRACTIONS, _WORD, r"\p{N}", _PUNCTUATION, _SPACES])
_QWEN35_WORDS = "|".join(
    [
        _CONTRACTIONS,
        r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
        r"\p{N}",
        r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
        _SPACES,
    ]
)
_TEKKEN_WORDS = "|".join([_CASED_1, _CASED_2, r"\p{N}", _PUNCTUATION_OR_SLASH, _SPACES])
_O200K_WORDS = "|".join(
    [
        rf"{_CASED_1}{_CONTRACTIONS}?",
        rf"{_CASED_2}{_CONTRACTIONS}?",
        r"\p{N}{1,3}",
        _PUNCTUATION_OR_SLASH,
        _SPACES,
    ]
)
_SEED_WORDS = "|".join([_CONTRACTIONS, _WORD, r"\p{N}", r" ?[^\s\p{L}\p{N}\r\n]+", _SPACES])
_DEEPSEEK3_WORDS = "|".join(
    [
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+",
        r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
        r" ?[\p{P}\p{S}]+[\r\n]*",
        _SPACES,
    ]
)
_CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_CJK_HANGUL = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
# Cased letters, those in Unicode when DeepSeek LLM's tokenizer was made.
_CASED_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293"
    "\u0295-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c"
    "\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5"
    "\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59"
    "\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fc2-\u1fc4\u1fc6-\u1fcc"
    "\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107"
    "\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    "\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee"
    "\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e"
    "\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f"
    "\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"
    "\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_DEEPSEEK_PUNCTUATION = "!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002"

_DEFAULT = PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", GPT2_WORDS, r"\p{N}+", "[0-9][0-9][0-9]"))
_GPT2_FAMILY = PreTokenizer((GPT2_WORDS,))
_DIGITS = PreTokenizer((r"\p{N}", GPT2_WORDS))
_LLAMA3 = PreTokenizer((_LLAMA3_WORDS,), ignore_merges=True, add_bos=True)
_LLAMA3_MERGING = PreTokenizer((_LLAMA3_WORDS,))
_QWEN2 = PreTokenizer((_QWEN2_WORDS,))
_O200K = PreTokenizer((_O200K_WORDS,))
_DEEPSEEK3 = PreTokenizer((r"\p{N}{1,3}", _CJK, _DEEPSEEK3_WORDS))

PRE_TOKENIZERS = {
    "default": _DEFAULT,
    **dict.fromkeys(
        ["gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "exaone4", "mpt", "olmo", "jais"],
        _GPT2_FAMILY,
    ),
    **dict.fromkeys(
        ["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        _DIGITS,
    ),
    **dict.fromkeys(
        ["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2"], _LLAMA3
    ),
    **dict.fromkeys(["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], _LLAMA3_MERGING),
    "qwen2": PreTokenizer((_QWEN2_WORDS,), nfc=True),
    "qwen35": PreTokenizer((_QWEN35_WORDS,)),
    **dict.fromkeys(["deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan", "grok-2"], _QWEN2),
    "tekken": PreTokenizer((_TEKKEN_WORDS,), ignore_merges=True, add_bos=True),
    **dict.fromkeys(["gpt-4o", "llama4"], _O200K),
    "seed-coder": PreTokenizer((_SEED_WORDS,)),
    **dict.fromkeys(["deepseek-v3", "hunyuan-dense"], _DEEPSEEK3),
    "deepseek-llm": PreTokenizer(
        (
            r"[\r\n]",
            rf"\s?[{_CASED_LETTERS}]+",
            rf"\s?[{_DEEPSEEK_PUNCTUATION}]+",
            r"\s+(?!.)",
            _CJK_HANGUL,
            r"\p{N}",
        )
    ),
    "deepseek-coder": PreTokenizer(
        (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK_HANGUL, r"\p{N}"),
    ),
    "falcon": PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", GPT2_WORDS, "[0-9][0-9][0-9]")),
}

# A token and its id by which a vocabulary is recognized.
_KNOWN_VOCABULARIES = {
    ("<|begin_of_text|>", 128000): "llama-bpe",
    ("<|endoftext|>", 151643): "qwen2",
    ("<|endoftext|>", 248044): "qwen35",
    ("<|endoftext|>", 50256): "gpt-2",
    ("<|endoftext|>", 199999): "gpt-4o",
    ("<|im_start|>", 1): "smollm",
    ("<fim_prefix>", 1): "starcoder",
    ("[INST]", 3): "tekken",
    (">>TITLE<<", 0): "falcon",
    ("<|START_OF_TURN_TOKEN|>", 255000): "command-r",
    ("<\uff5cbegin\u2581of\u2581sentence\uff5c>", 0): "deepseek-v3",
    ("<\uff5cbegin\u2581of\u2581sentence\uff5c>", 32013): "deepseek-coder",
    ("<\uff5cbegin\u2581of\u2581sentence\uff5c>", 100000): "deepseek-llm",
    ("<\uff5cbegin\u2581of\u2581sentence\uff5c>", 128000): "llama-bpe",
    ("<\uff5cbegin\u2581of\u2581sentence\uff5c>", 151646): "deepseek-r1-qwen",
}


def recognized(tokens: Sequence[str]) -> str | None:
    """Returns the name of the pre-tokenizer that belongs to a vocabulary; None if not known."""
    for (text, token_id), name in _KNOWN_VOCABULARIES.items():
        if token_id < len(tokens) and tokens[token_id] == text:
            return name
    return None
