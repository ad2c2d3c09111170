"""How matrices lie in device memory, and the WGSL that reads them.

A matrix [rows, cols], cols % 32 == 0, is two planes; group i of 32 columns is that of row
i / (cols / 32), column 32 * (i % (cols / 32)):

    quants  array<vec4<u32>>
            4, 5, 6 bits: one vec4 a group; byte b of word j holds the low four bits of elements
            4j + b (its low nibble) and 16 + 4j + b (its high nibble), as in GGUF's Q4_0
            8 bits: two vec4, int8 in order; 16 and 32 bits: 4 and 8 vec4, floats in order
    side    array<u32>, what else belongs to a group: first its high bits, then its scales
            5 bits: one word, bit 8b + j for element 4j + b; 6 bits: two words (elements 0-15 and
            16-31), bits 8b + 2j and above for element 4j + b
            scales: f16. One for 32 columns without high bits: the half words of `side` in order;
            else a word that holds (scale, unused) or (scale, scale of the upper 16 columns).
            With mins: a word (scale, min) for each 32 or 16 columns
            floats: one word, unused

A kernel that reads weights declares both planes under these names, includes `reader(format)` and
calls `load_group(i) -> Group` and `group_value(group, j) -> vec4<f32>`, elements 4j .. 4j + 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from webllm.artifacts.checkpoint import GGMLType
from webllm.backends.webgpu.kernels.template import snippet
from webllm.errors import UnsupportedModelError

GROUP = 32  # columns

_HIGH_WORDS = {5: 1, 6: 2}


@dataclass(frozen=True, slots=True)
class Planar:
    """value = scale * (q - zero), or scale * q + min with `mins`; 16 and 32 bits are floats.

    `scale_group` columns share a scale: 16 or 32, 0 for floats. `brain`: bfloat16.
    """

    bits: int
    scale_group: int = 0
    mins: bool = False
    brain: bool = False

    @property
    def is_float(self) -> bool:
        return self.bits >= 16

    @property
    def zero(self) -> int:
        return 0 if self.mins or self.bits >= 8 else 1 << (self.bits - 1)

    @property
    def high_words(self) -> int:
        return _HIGH_WORDS.get(self.bits, 0)

    @property
    def half_scales(self) -> bool:
        """Whether `side` holds nothing but one half word a group."""
        return not self.is_float and not self.high_words and self.side_words == 0

    @property
    def side_words(self) -> int:
        """Words a group has in `side`; 0 for half a word, and for floats."""
        if self.is_float or (self.scale_group == GROUP and not self.mins and not self.high_words):
            return 0
        per_scale = GROUP // self.scale_group if self.mins else 1
        return self.high_words + per_scale

    def quants_bytes(self, groups: int) -> int:
        return 4 * groups * (self.bits if self.bits >= 8 else 4)

    def side_bytes(self, groups: int) -> int:
        if self.is_float:
            return 4
        return 4 * groups * self.side_words or 4 * -(-groups // 2)


FORMATS = {
    GGMLType.F32: Planar(32),
    GGMLType.F16: Planar(16),
    GGMLType.BF16: Planar(16, brain=True),
    GGMLType.Q4_0: Planar(4, 32),
    GGMLType.Q4_1: Planar(4, 32, mins=True),
    GGMLType.Q5_0: Planar(5, 32),
    GGMLType.Q5_1: Planar(5, 32, mins=True),
    GGMLType.Q8_0: Planar(8, 32),
    GGMLType.Q2_K: Planar(4, 16, mins=True),
    GGMLType.Q3_K: Planar(4, 16),
    GGMLType.Q4_K: Planar(4, 32, mins=True),
    GGMLType.Q5_K: Planar(5, 32, mins=True),
    GGMLType.Q6_K: Planar(6, 16),
}


def format_of(dtype: GGMLType) -> Planar:
    """The narrowest format that holds a GGML type's quants exactly."""
    if dtype not in FORMATS:
        raise UnsupportedModelError(f"weights of type {dtype.name} are not read; convert them")
    return FORMATS[dtype]


def joined(dtypes: list[GGMLType]) -> Planar:
    """The narrowest format that holds them all exactly, for the parts of one weight."""
    return reduce(_join, (format_of(dtype) for dtype in dtypes))


def _join(a: Planar, b: Planar) -> Planar:
    if a == b:
        return a
    if a.is_float or b.is_float:
        return Planar(32)
    return Planar(max(a.bits, b.bits), min(a.scale_group, b.scale_group), a.mins or b.mins)


def reader(form: Planar) -> str:
    """WGSL: `Group`, `load_group`, `group_value`; reads the bindings `quants` and `side`."""
    if form.is_float:
        return snippet(f"quant/{'bfloat16' if form.brain else f'float{form.bits}'}")
    return "\n".join(
        (
            f"const SIDE_WORDS = {form.side_words}u;",
            f"const HIGH_WORDS = {form.high_words}u;",
            f"const ZERO = {form.zero}.0;",
            snippet(f"quant/bits{form.bits}"),
            snippet(f"quant/{_scales(form)}"),
            snippet("quant/quantized"),
        )
    )


def _scales(form: Planar) -> str:
    if form.half_scales:
        return "scale_half"
    return f"{'min' if form.mins else 'scale'}{form.scale_group}"
