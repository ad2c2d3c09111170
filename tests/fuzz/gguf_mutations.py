"""Mutations of made-up models: they change fields of a GGUF file, seldom raw bytes."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import prod
from typing import Any

from made_up_models import (
    ARCHITECTURES,
    ARRAY,
    BOOL,
    FLOAT32,
    LETTERS,
    STRING,
    SUPPORTED,
    TEMPLATE,
    UINT32,
    Draft,
    Entry,
    Sizes,
    draft_of,
    random_bytes,
)

from webllm.artifacts.checkpoint import StorageType

NUMBERS = [
    *(
        0,
        1,
        -1,
        2,
        3,
        7,
        15,
        16,
        17,
        31,
        32,
        33,
        63,
        64,
        255,
        256,
        257,
        511,
        512,
        513,
        4096,
        65_536,
    ),
    *(1 << 20, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**61, 2**63 - 1, 2**63, 2**64 - 1, -(2**31)),
    *(0.0, 0.5, 1e-45, 1e-30, 1e30, 3e38, 1e308, float("inf"), float("-inf"), float("nan")),
]
TEMPLATES = [
    TEMPLATE,
    "{{ messages[0].content }}", "", "{{", "{% for i in range(9) %}", "{{ raise_exception('no') }}",
    "{{ bos_token }}{{ messages }}", "{{ messages[5].content }}", "{{ 1 // 0 }}", "{{ x.y.z }}",
    "{% for i in range(10**9) %}{{ i }}{% endfor %}", "{{ 'a' * 10**9 }}", "{{ messages | map }}",
]  # fmt: skip

EXTRA_KEYS: list[tuple[str, int, list[Any]]] = [
    ("{}.rope.scaling.type", STRING, ["none", "linear", "yarn", "longrope", ""]),
    ("{}.rope.scaling.factor", FLOAT32, NUMBERS),
    ("{}.rope.scaling.original_context_length", UINT32, NUMBERS),
    ("{}.attn_logit_softcapping", FLOAT32, NUMBERS),
    ("tokenizer.ggml.unknown_token_id", UINT32, NUMBERS),
    ("tokenizer.ggml.eot_token_id", UINT32, NUMBERS),
    ("tokenizer.ggml.add_eos_token", BOOL, [0, 1, 2]),
    ("tokenizer.ggml.add_space_prefix", BOOL, [0, 1]),
    ("general.alignment", UINT32, [0, 1, 8, 16, 24, 32, 64, 4096, 2**31]),
    ("split.count", 2, [0, 1, 2]),
]
_NAMES = [
    "<s>",
    "</s>",
    "<|im_end|>",
    "<0x00>",
    "<0xZZ>",
    "",
    "a",
    "\udcff",
    "x" * 300,
    "H i",
    " ",
    "\0",
]


def change_value(rng: random.Random, draft: Draft) -> str:
    entry = rng.choice(draft.entries)
    if entry.type_id == ARRAY:
        return _change_array(rng, entry)
    if entry.type_id == STRING:
        arch = [*ARCHITECTURES, "gpt2", "llama", "qwen2", "default", "smollm", *_NAMES]
        is_template = "template" in entry.key
        entry.value = rng.choice(TEMPLATES if is_template else arch)
    else:
        entry.value = rng.choice([*NUMBERS, _near(rng, entry.value)])
    return f"{entry.key} = {str(entry.value)[:60]}"


def _near(rng: random.Random, value: object) -> float:
    number = value if isinstance(value, int | float) else 1
    return rng.choice([number + 1, number - 1, number * 2, number // 2, number * 16, -number])


def _change_array(rng: random.Random, entry: Entry) -> str:
    value = entry.value if isinstance(entry.value, tuple) else (UINT32, [entry.value])
    of, items = value[0], list(value[1])
    kind = rng.choice(["cut", "grow", "one", "type", "shuffle", "all", "twice"])
    at = rng.randrange(len(items) + 1)
    some = rng.choice(_NAMES if of == STRING else NUMBERS)
    match kind:
        case "cut":
            items = items[:at]
        case "grow":
            items += [some] * rng.choice([1, 2, 1000])
        case "one":
            items[at : at + 1] = [some]
        case "type":
            of = rng.choice([*LETTERS, STRING])
        case "shuffle":
            rng.shuffle(items)
        case "all":
            items = [some] * len(items)
        case "twice":
            items[at : at + 1] = items[:1]
    entry.value = of, items
    return f"{entry.key}: {kind} at {at} with {some!r:.20}, elements of type {of}"


def change_type(rng: random.Random, draft: Draft) -> str:
    entry = rng.choice(draft.entries)
    old, entry.type_id = entry.type_id, rng.choice([*LETTERS, STRING, ARRAY, 13])
    if old == ARRAY and entry.type_id != ARRAY:
        entry.value = rng.choice(NUMBERS)
    return f"{entry.key} has type {entry.type_id}"


def change_entries(rng: random.Random, draft: Draft) -> str:
    at = rng.randrange(len(draft.entries))
    entry = draft.entries[at]
    if rng.random() < 0.4:
        del draft.entries[at]
        return f"without {entry.key}"
    if rng.random() < 0.2:
        draft.entries.append(entry)
        return f"{entry.key} twice"
    key, type_id, values = rng.choice(EXTRA_KEYS)
    arch = rng.choice(ARCHITECTURES) if rng.random() < 0.1 else str(draft.entries[0].value)
    draft.put(key.format(arch), type_id, rng.choice(values))
    return f"{draft.entries[-1].key} = {draft.entries[-1].value}"


def change_tensor(rng: random.Random, draft: Draft) -> str:
    if not draft.tensors:
        return "no tensors"
    at = rng.randrange(len(draft.tensors))
    tensor = draft.tensors[at]
    axis = rng.randrange(max(len(tensor.sizes), 1))
    whole = [n for n in NUMBERS if isinstance(n, int)]
    kind = rng.choice(["size", "swap", "axis", "type", "offset", "name", "drop", "twice", "refill"])
    match kind:
        case "size":
            tensor.sizes[axis : axis + 1] = [rng.choice([*whole, tensor.sizes[axis] + 1])]
        case "swap":
            tensor.sizes.reverse()
        case "axis":
            tensor.sizes.insert(rng.randrange(3), 1)
        case "type":
            tensor.type_id = rng.choice([*StorageType, 4, 99, 2**31])
        case "offset":
            tensor.offset = rng.choice([*whole, 32, 64, 1 << 16])
        case "name":
            other = rng.choice(draft.tensors).name
            tensor.name = rng.choice([other, "", "output.weight", "rope_freqs.weight", "blk.0.x"])
        case "drop":
            del draft.tensors[at]
        case "twice":
            draft.tensors.append(tensor)
        case "refill":  # another shape or type with the bytes that it needs
            dtype = rng.choice(SUPPORTED)
            rows = rng.choice([tensor.sizes[-1], tensor.sizes[-1] + 1, 1, 16, 300])
            cols = rng.choice([tensor.sizes[0], 1, 32, 64, 96, 256])
            cols = max(cols // dtype.block_elements, 1) * dtype.block_elements
            tensor.sizes, tensor.type_id = [cols, rows][: len(tensor.sizes)], dtype
            if prod(tensor.sizes) > 1 << 20:
                tensor.sizes = [dtype.block_elements]
            tensor.data = random_bytes(rng, dtype, prod(tensor.sizes))
    return f"tensor {tensor.name}: {kind}, now {tensor.sizes} of type {tensor.type_id}"


_PATTERNS = [
    *(b"\0\0\x80\x7f", b"\0\0\x80\xff", b"\0\0\xc0\x7f", b"\xff\xff\x7f\x7f", b"\1\0\0\0"),
    *(b"\x00\x7c", b"\x00\xfc", b"\x00\x7e", b"\xff\x7b", b"\xff\xff", b"\x00\x00", b"\x80\x80"),
]


def change_weights(rng: random.Random, draft: Draft) -> str:
    """Sets one, many or all values to infinities, NaN, or the largest or smallest number."""
    if not draft.tensors:
        return "no tensors"
    tensor, pattern = rng.choice(draft.tensors), rng.choice(_PATTERNS)
    count = len(tensor.data) // len(pattern)
    if rng.random() < 0.3:
        tensor.data[: count * len(pattern)] = pattern * count
        return f"tensor {tensor.name}: all {pattern.hex()}"
    for _ in range(rng.choice([1, 1, 8, 64])):
        at = rng.randrange(max(count, 1)) * len(pattern)
        tensor.data[at : at + len(pattern)] = pattern[: len(tensor.data) - at]
    return f"tensor {tensor.name}: some {pattern.hex()}"


def change_header(rng: random.Random, draft: Draft) -> str:
    if rng.random() < 0.2:
        draft.version = rng.choice([0, 1, 2, 4, 1 << 24])
        return f"version {draft.version}"
    counts = [len(draft.tensors), len(draft.entries)]
    counts[rng.randrange(2)] = rng.choice(
        [0, 1, counts[0] - 1, counts[1] + 1, 2**31, 2**63, 2**64 - 1]
    )
    draft.counts = counts[0] % 2**64, counts[1] % 2**64
    return f"counts {draft.counts}"


MUTATIONS: list[tuple[int, Callable[[random.Random, Draft], str]]] = [
    (30, change_value), (8, change_type), (12, change_entries), (25, change_tensor),
    (20, change_weights), (2, change_header),
]  # fmt: skip


def odd_sizes(rng: random.Random, arch: str) -> Sizes:
    """Returns sizes that agree with each other, but that no real model has."""
    edges = [1, 2, 8, 16, 17, 31, 32, 33, 48, 64, 96, 128, 256]
    sizes: dict[str, Any] = {
        "hidden": 64, "wide": 96, "heads": 4, "kv_heads": 2, "head_dim": 16, "layers": 2
    }  # fmt: skip
    for name in rng.sample(list(sizes), rng.choice([1, 1, 2, 3])):
        choice = {"layers": [0, 1, 3], "heads": [1, 2, 3, 5, 8, 33], "kv_heads": [1, 2, 3, 4, 8]}
        sizes[name] = rng.choice(
            choice.get(name, [*edges, 512, 528] if name == "head_dim" else edges)
        )
    return Sizes(arch, **sizes, dtype=StorageType.F32)


def usual_sizes(rng: random.Random, arch: str) -> Sizes:
    dtype = rng.choice([*SUPPORTED, StorageType.Q8_0, StorageType.Q4_0])
    wide = dtype.block_elements > 32
    tokenizer = "llama" if arch == "gemma3" or rng.random() < 0.3 else "gpt2"
    return Sizes(
        arch,
        hidden=256 if wide else 64,
        wide=256 if wide else rng.choice([32, 96]),
        heads=16 if wide else 4,
        layers=1 if wide else 2,
        dtype=dtype,
        norms=rng.choice([StorageType.F32, StorageType.F32, StorageType.F16, StorageType.BF16]),
        tokenizer=tokenizer,
    )


def mutated(seed: int, index: int) -> tuple[bytes, list[str]]:
    """Returns file number `index` of a seed, always the same, and a list of its mutations."""
    rng = random.Random(f"{seed}:{index}")
    arch = rng.choice(ARCHITECTURES)
    odd = rng.random() < 0.25
    sizes = odd_sizes(rng, arch) if odd else usual_sizes(rng, arch)
    draft = draft_of(rng, sizes)
    edits = [str(sizes)]
    weights = [weight for weight, _ in MUTATIONS]
    for _ in range(rng.choice([0, 0, 1]) if odd else rng.choice([0, 1, 1, 1, 2, 3, 5])):
        [(_, change)] = rng.choices(MUTATIONS, weights)
        edits.append(change(rng, draft))
    data = bytearray(draft.packed())
    if rng.random() < 0.06:
        data = data[: rng.randrange(len(data))]
        edits.append(f"cut at {len(data)}")
    if rng.random() < 0.06:
        for _ in range(rng.choice([1, 2, 16])):
            if data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        edits.append("bits flipped")
    return bytes(data), edits
