"""Small made-up models of every architecture, the same on every machine.

Weights come from a counter-based integer generator keyed by the tensor's name, so that tests make
them again with numpy alone and only logits need to be stored. They are drawn so that attention
has sharp peaks and logits spread. All values are float16 and bfloat16 alike: every unquantized form
of a model holds exactly the same numbers.
"""

from __future__ import annotations

import hashlib
from functools import cache, partial
from typing import Any

import numpy as np

from model_files.gguf_reader import CLASSES, OF_TYPE, UNREAD, layer_types
from model_files.model import Array, Load, Model, Plain, Vocabulary, is_norm, round_bf16
from webllm.text.vocabulary import byte_level_alphabet

SEED = "webllm 1"
STD_OF_SUM = (4 / 12) ** 0.5  # of four uniform numbers
VOCAB_SIZE = 320  # rows of the embedding, more than the tokens
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BASE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rms_norm_eps": 3e-3,
    "rope_theta": 5000.0,
    "rope_scaling": None,
    "max_position_embeddings": 256,
    "vocab_size": VOCAB_SIZE,
    "tie_word_embeddings": True,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24}
GEMMA: dict[str, Any] = {
    "hidden_size": 64,
    "head_dim": 64,
    "num_hidden_layers": 7,
    "layer_types": layer_types(7),
    "rms_norm_eps": 0.1,
    "rope_theta": 40000.0,
    "sliding_window": 12,
    "query_pre_attn_scalar": 64,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "tiny-llama": {"model_type": "llama"},
    "tiny-llama3": {"model_type": "llama", "rope_scaling": LLAMA3, "tie_word_embeddings": False},
    "tiny-qwen2": {"model_type": "qwen2", "tie_word_embeddings": False},
    "tiny-qwen2-yarn": {"model_type": "qwen2", "rope_scaling": YARN, "max_position_embeddings": 96},
    "tiny-qwen3": {"model_type": "qwen3", "head_dim": 64},
    "tiny-gemma3": {"model_type": "gemma3_text", **GEMMA},
}


def made_up(name: str) -> Model:
    """Returns a model of `CONFIGS`."""
    config = BASE | UNREAD | OF_TYPE[CONFIGS[name]["model_type"]] | CONFIGS[name]
    config["architectures"] = [CLASSES[config["model_type"]]]
    config["torch_dtype"] = "float16"
    is_gemma = config["model_type"] == "gemma3_text"
    vocabulary = sentencepiece_vocabulary() if is_gemma else byte_level_vocabulary()
    for token in ("bos", "eos"):
        config[f"{token}_token_id"] = vocabulary.ids[token]
    tensors: dict[str, Load] = {
        tensor: partial(_weight, name, tensor, shape, is_gemma)
        for tensor, shape in shapes(config).items()
    }
    generation = {
        "do_sample": True,
        "temperature": 0.75,
        "top_p": 0.875,
        "eos_token_id": vocabulary.ids["eos"],
    }
    return Model(config, tensors, vocabulary, generation)


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every tensor of an architecture, by Hugging Face's names."""
    hidden, wide, head_dim = (config[n] for n in ("hidden_size", "intermediate_size", "head_dim"))
    q, kv = (config[f"num_{n}_heads"] * head_dim for n in ("attention", "key_value"))
    kind = config["model_type"]
    block: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (q, hidden),
        "self_attn.k_proj.weight": (kv, hidden),
        "self_attn.v_proj.weight": (kv, hidden),
        "self_attn.o_proj.weight": (hidden, q),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (wide, hidden),
        "mlp.up_proj.weight": (wide, hidden),
        "mlp.down_proj.weight": (hidden, wide),
    }
    if kind == "qwen2":
        for part, size in (("q", q), ("k", kv), ("v", kv)):
            block[f"self_attn.{part}_proj.bias"] = (size,)
    if kind in ("qwen3", "gemma3_text"):
        block |= {f"self_attn.{part}_norm.weight": (head_dim,) for part in "qk"}
    if kind == "gemma3_text":
        block |= {f"{part}_feedforward_layernorm.weight": (hidden,) for part in ("pre", "post")}
    outer: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    if not config["tie_word_embeddings"]:
        outer["lm_head.weight"] = (config["vocab_size"], hidden)
    layers = range(config["num_hidden_layers"])
    return outer | {f"model.layers.{i}.{n}": shape for i in layers for n, shape in block.items()}


def _weight(model: str, name: str, shape: tuple[int, ...], lack_one: bool) -> Plain:
    numbers = draws(f"{SEED} {model} {name}", int(np.prod(shape))).reshape(shape)
    if is_norm(name):
        values = np.round((1 + 0.3 * _uniform(numbers)) * 128) / 128
        return Plain((values - float(lack_one)).astype(np.float32))
    if len(shape) == 1:
        return Plain((np.round(32 * _uniform(numbers)) / 64).astype(np.float32))
    spread = 1.5 / shape[1] ** 0.5
    # Whole multiples of 2^-17 with 8 significant bits are float16 and bfloat16.
    rounded = np.round(_bell(numbers) * spread * 2**17) / 2**17
    return Plain(round_bf16(rounded.astype(np.float32)))


def draws(key: str, count: int) -> Array:
    """Returns numbers of 64 bits, uint64 [count]: SplitMix64 from a hash of `key`."""
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    with np.errstate(over="ignore"):
        x = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = x + np.uint64(start)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def _uniform(numbers: Array) -> Array:
    """Returns float64 in -1..1."""
    return (numbers >> np.uint64(11)).astype(np.float64) / 2**52 - 1


def _bell(numbers: Array) -> Array:
    """Returns about normal numbers of standard deviation 1: sums of four of 16 bits each."""
    shifts = np.array([0, 16, 32, 48], np.uint64)
    parts = (numbers[..., None] >> shifts) & np.uint64(0xFFFF)
    sums: Array = parts.astype(np.float64).sum(axis=-1)
    return (sums / 2**16 - 2) / STD_OF_SUM


def token_ids(key: str, count: int) -> list[int]:
    """Returns made-up ids of normal tokens, which are those from 4 to 259 in both vocabularies."""
    ids: list[int] = (draws(f"{SEED} ids {key}", count) % np.uint64(256)).astype(int).tolist()
    return [token_id + 4 for token_id in ids]


MERGES = ["Ġ t", "h e", "Ġt he", "i n", "a n", "an d", "Ġ and", "Ġ a", "o u", "e r", "H i"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@cache
def byte_level_vocabulary() -> Vocabulary:
    """A byte-level BPE whose special tokens come last, as Qwen's do."""
    words = [merge.replace(" ", "") for merge in MERGES]
    tokens = [*byte_level_alphabet(), *words, *SPECIAL]
    num_normal = len(tokens) - len(SPECIAL)
    ids = {name: num_normal + i for name, i in (("bos", 0), ("eos", 2), ("padding", 0))}
    types = [1] * num_normal + [3] * len(SPECIAL)
    return Vocabulary(tokens, types, MERGES, None, "qwen2", ids, chat_template=TEMPLATE)


@cache
def sentencepiece_vocabulary() -> Vocabulary:
    """A SentencePiece BPE in Gemma's order, with bytes for all other characters."""
    head = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{i:02X}>" for i in range(256))]
    pieces = ["th", "the", "▁the", "in", "an", "and", "▁and", "▁a", "ou", "er", "Hi"]
    letters = ["▁", *"etaoinshrdluwcHi"]
    letters = list(dict.fromkeys(letters))
    tail = ["<start_of_turn>", "<end_of_turn>"]
    tokens = [*head, *pieces, *letters, *tail]
    types = [3, 3, 3, 2] + [6] * 256 + [1] * (len(pieces) + len(letters)) + [3, 3]
    scores = [0.0] * len(head) + [-float(i) for i in range(len(pieces) + len(letters))] + [0.0] * 2
    ids = {"bos": 2, "eos": 1, "unknown": 3, "padding": 0}
    return Vocabulary(
        tokens, types, None, scores, "default", ids, add_bos=True, chat_template=TEMPLATE
    )
