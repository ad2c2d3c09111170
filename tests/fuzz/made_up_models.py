"""Small GGUF models with made-up weights, as drafts that can be mutated before they are packed."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from functools import cache
from math import prod

import numpy as np

from webllm.artifacts.checkpoint import StorageType
from webllm.text.vocabulary import byte_level_alphabet

LETTERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIifBQqd", strict=True))
UINT32, FLOAT32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3")
SUPPORTED = [dtype for dtype in StorageType if dtype.supported and dtype.is_ggml]
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


@dataclass(slots=True)
class Entry:
    key: str
    type_id: int
    value: object  # of an array: (type id of its elements, list)


@dataclass(slots=True)
class Tensor:
    name: str
    sizes: list[int]  # GGUF's order, the row's length first
    type_id: int
    data: bytearray
    offset: int | None = None  # None: where the data lies


@dataclass(slots=True)
class Draft:
    entries: list[Entry] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    version: int = 3
    counts: tuple[int, int] | None = None  # of tensors and entries; None: the true ones
    edits: list[str] = field(default_factory=list)  # description of the change

    def put(self, key: str, type_id: int, value: object) -> None:
        self.entries.append(Entry(key, type_id, value))

    def packed(self) -> bytes:
        alignment, offsets, data = 32, [], bytearray()
        for tensor in self.tensors:
            offsets.append(len(data) if tensor.offset is None else tensor.offset)
            data += tensor.data + bytes(-len(tensor.data) % alignment)
        num_tensors, num_entries = self.counts or (len(self.tensors), len(self.entries))
        out = bytearray(b"GGUF" + struct.pack("<IQQ", self.version, num_tensors, num_entries))
        for entry in self.entries:
            out += _text(entry.key) + struct.pack("<I", entry.type_id)
            out += _value(entry.type_id, entry.value)
        for tensor, offset in zip(self.tensors, offsets, strict=True):
            sizes = [size % 2**64 for size in tensor.sizes]
            out += _text(tensor.name) + struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
            out += struct.pack("<IQ", tensor.type_id % 2**32, offset % 2**64)
        return bytes(out + bytes(-len(out) % alignment) + data)


def _text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def _value(type_id: int, value: object) -> bytes:
    """Packs a value as `type_id`, wrapped or truncated to its range."""
    if type_id == STRING:
        return _text(value if isinstance(value, str) else str(value))
    if type_id == ARRAY:
        of, items = value if isinstance(value, tuple) else (UINT32, [value])
        return struct.pack("<IQ", of, len(items)) + b"".join(_value(of, item) for item in items)
    letter = LETTERS.get(type_id, "I")
    number = value if isinstance(value, int | float) else len(str(value))
    if letter in "fd":
        return np.array([float(number)]).astype(f"<f{4 if letter == 'f' else 8}").tobytes()
    whole = int(number) if abs(number) < 2**65 else 0
    size = struct.calcsize(letter)
    return (whole & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def random_bytes(
    rng: random.Random, dtype: StorageType, num_values: int, scale: float = 0.001123
) -> bytearray:
    """Returns valid blocks of weights; `scale` is that of quantized ones."""
    if dtype in (StorageType.F32, StorageType.F16, StorageType.BF16):
        values = np.frombuffer(rng.randbytes(num_values), np.int8) / np.float32(512)
        if dtype is StorageType.F32:
            return bytearray(values.astype("<f4").tobytes())
        if dtype is StorageType.F16:
            return bytearray(values.astype("<f2").tobytes())
        return bytearray((values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes())
    blocks = num_values // dtype.block_elements * dtype.block_bytes
    data = np.frombuffer(rng.randbytes(blocks), np.uint8).reshape(-1, dtype.block_bytes).copy()
    for at in halves_of(dtype):
        data[:, at : at + 2] = np.frombuffer(struct.pack("<e", scale), np.uint8)
    return bytearray(data.tobytes())


def halves_of(dtype: StorageType) -> tuple[int, ...]:
    """Returns the byte offsets of the half floats in a block, for all makers of random blocks."""
    assert dtype in _HALVES, f"add {dtype.name} to _HALVES, in {__file__}"
    return _HALVES[dtype]


_HALVES = {
    StorageType.Q4_0: (0,),
    StorageType.Q4_1: (0, 2),
    StorageType.Q5_0: (0,),
    StorageType.Q5_1: (0, 2),
    StorageType.Q8_0: (0,),
    StorageType.Q2_K: (80, 82),
    StorageType.Q3_K: (108,),
    StorageType.Q4_K: (0, 2),
    StorageType.Q5_K: (0, 2),
    StorageType.Q6_K: (208,),
    StorageType.IQ4_NL: (0,),
    StorageType.IQ4_XS: (0,),
}


@dataclass(frozen=True, slots=True)
class Sizes:
    arch: str
    hidden: int = 64
    wide: int = 96
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    layers: int = 2
    dtype: StorageType = StorageType.Q8_0
    norms: StorageType = StorageType.F32
    tokenizer: str = "gpt2"


def draft_of(rng: random.Random, sizes: Sizes) -> Draft:
    draft = Draft()
    put, a = draft.put, sizes.arch
    put("general.architecture", STRING, a)
    put(f"{a}.block_count", UINT32, sizes.layers)
    put(f"{a}.context_length", UINT32, 256)
    put(f"{a}.embedding_length", UINT32, sizes.hidden)
    put(f"{a}.feed_forward_length", UINT32, sizes.wide)
    put(f"{a}.attention.head_count", UINT32, sizes.heads)
    put(f"{a}.attention.head_count_kv", UINT32, sizes.kv_heads)
    put(f"{a}.attention.key_length", UINT32, sizes.head_dim)
    put(f"{a}.attention.value_length", UINT32, sizes.head_dim)
    put(f"{a}.attention.layer_norm_rms_epsilon", FLOAT32, 1e-5)
    put(f"{a}.attention.sliding_window", UINT32, 16)
    put(f"{a}.rope.dimension_count", UINT32, sizes.head_dim)
    put(f"{a}.rope.freq_base", FLOAT32, 1e4)
    entries, num_tokens = tokenizer_entries(sizes.tokenizer)
    draft.entries += [Entry(e.key, e.type_id, e.value) for e in entries]
    put("tokenizer.chat_template", STRING, TEMPLATE)
    for name, shape in _shapes(sizes, num_tokens).items():
        dtype = sizes.norms if len(shape) == 1 else sizes.dtype
        if shape[-1] % dtype.block_elements:
            dtype = StorageType.F32
        data = random_bytes(rng, dtype, prod(shape))
        draft.tensors.append(Tensor(name, [*reversed(shape)], dtype, data))
    return draft


def _shapes(s: Sizes, vocab: int) -> dict[str, tuple[int, ...]]:
    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    block: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (s.hidden,), "ffn_norm.weight": (s.hidden,),
        "attn_q.weight": (q, s.hidden), "attn_k.weight": (kv, s.hidden),
        "attn_v.weight": (kv, s.hidden), "attn_output.weight": (s.hidden, q),
        "ffn_gate.weight": (s.wide, s.hidden), "ffn_up.weight": (s.wide, s.hidden),
        "ffn_down.weight": (s.hidden, s.wide),
    }  # fmt: skip
    if s.arch == "qwen2":
        block |= {"attn_q.bias": (q,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
    if s.arch in ("qwen3", "gemma3"):
        block |= {"attn_q_norm.weight": (s.head_dim,), "attn_k_norm.weight": (s.head_dim,)}
    if s.arch == "gemma3":
        block |= {"post_attention_norm.weight": (s.hidden,), "post_ffw_norm.weight": (s.hidden,)}
    shapes = {"token_embd.weight": (vocab, s.hidden), "output_norm.weight": (s.hidden,)}
    return shapes | {f"blk.{i}.{n}": shape for i in range(s.layers) for n, shape in block.items()}


@cache
def tokenizer_entries(kind: str) -> tuple[list[Entry], int]:
    if kind == "gpt2":
        tokens = [*byte_level_alphabet(), "Hi", "Ġa", "ab", "<|im_end|>"]
        types = [1] * (len(tokens) - 1) + [3]
        extra = [
            Entry("tokenizer.ggml.pre", STRING, "gpt-2"),
            Entry("tokenizer.ggml.merges", ARRAY, (STRING, ["H i", "Ġ a", "a b"])),
        ]
    else:
        tokens = [
            "<unk>",
            "<s>",
            "</s>",
            *(f"<0x{i:02X}>" for i in range(256)),
            "▁",
            "a",
            "▁a",
            "H",
        ]
        types = [2, 3, 3] + [6] * 256 + [1] * 4
        scores = [-float(i) for i in range(len(tokens))]
        extra = [Entry("tokenizer.ggml.scores", ARRAY, (FLOAT32, scores))]
    eos = 2 if kind == "llama" else len(tokens) - 1
    return [
        Entry("tokenizer.ggml.model", STRING, kind),
        Entry("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
        Entry("tokenizer.ggml.token_type", ARRAY, (5, types)),
        Entry("tokenizer.ggml.bos_token_id", UINT32, 1),
        Entry("tokenizer.ggml.eos_token_id", UINT32, eos),
        Entry("tokenizer.ggml.add_bos_token", BOOL, kind == "llama"),
        *extra,
    ], len(tokens)
