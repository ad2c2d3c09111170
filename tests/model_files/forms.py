"""The forms in which a model can be written, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gguf import GGMLQuantizationType as Type

from model_files.gguf_writer import write_gguf
from model_files.mlc_writer import SHARD_BYTES, write_mlc
from model_files.model import Model, round_bf16, round_f16
from model_files.quantizing import mlx4, q4f16, q4f32, rounded_to, w4a16
from model_files.safetensors_writer import Floats, write_safetensors


@dataclass(frozen=True)
class Form:
    """A form for folders, and the GGUF form of exactly the same values."""

    values: Callable[[Model], Model]
    floats: Floats  # type of everything that is not quantized
    is_mlc: bool = False


def _same(model: Model) -> Model:
    return model


def _f16(model: Model) -> Model:
    return rounded_to(model, round_f16)


def _bf16(model: Model) -> Model:
    return rounded_to(model, round_bf16)


FOLDERS = {
    "q4f16_1": Form(q4f16, "F16", is_mlc=True),
    "q4f32_1": Form(q4f32, "BF16", is_mlc=True),
    "q0f16": Form(_f16, "F16", is_mlc=True),
    "q0f32": Form(_bf16, "BF16", is_mlc=True),
    "f32": Form(_same, "F32"),
    "f16": Form(_f16, "F16"),
    "bf16": Form(_bf16, "BF16"),
    "mlx4": Form(mlx4, "F16"),
    "mlx4-32-bf16": Form(lambda model: mlx4(model, 32, round_bf16), "BF16"),
    "w4a16": Form(w4a16, "F16"),
    "w4a16-64-bf16": Form(lambda model: w4a16(model, 64, round_bf16), "BF16"),
}
FORMS = (*FOLDERS, *(f"gguf-{name}" for name in FOLDERS))


def write_form(model: Model, out: Path, name: str, shard_bytes: int | None = None) -> None:
    """Writes `model` as one of `FORMS`: a folder `out`, or a file for those named gguf-…"""
    form = FOLDERS[name.removeprefix("gguf-")]
    values = form.values(model)
    if name.startswith("gguf-"):
        write_gguf(values, out, Type[form.floats])
    elif form.is_mlc:
        write_mlc(values, out, name, shard_bytes or SHARD_BYTES)
    else:
        write_safetensors(values, out, form.floats, shard_bytes)
