"""The patterns that split text into words before byte-level BPE, by `tokenizer.ggml.pre`.

The names are llama.cpp's. The patterns (Oniguruma syntax, `\\p{..}` classes) are those of each
family's own `tokenizer.json`; `word_splitter` applies them in order.
"""

from __future__ import annotations

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
    "deepseek-coder": PreTokenizer(
        (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK_HANGUL, r"\p{N}"),
    ),
    "falcon": PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", GPT2_WORDS, "[0-9][0-9][0-9]")),
}
