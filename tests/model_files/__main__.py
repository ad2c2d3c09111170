"""Writes a GGUF file's model in another form.

    PYTHONPATH=tests python -m model_files MODEL.gguf OUT q4f16_1
    PYTHONPATH=tests python -m model_files MODEL.gguf OUT f16 --shard-mb 100

Forms: MLC folders `q4f16_1`, `q4f32_1`, `q0f16`, `q0f32`; safetensors folders `f32`, `f16`, `bf16`,
`mlx4` (MLX's affine 4 bits, groups of 64), `mlx4-32-bf16`, `w4a16` (compressed-tensors, groups of
32), `w4a16-64-bf16`; files of the same values as these: `gguf-q4f16_1` (Q4_0), `gguf-mlx4` (Q4_1),
`gguf-f16` and so on; and `split`, the same file in parts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from model_files.forms import FORMS, write_form
from model_files.gguf_reader import read_gguf
from model_files.gguf_writer import split_gguf


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path, help="a folder, or a .gguf file")
    parser.add_argument("form", choices=[*FORMS, "split"])
    parser.add_argument("--shard-mb", type=int, help="safetensors: most megabytes of a file")
    parser.add_argument("--tensors-each", type=int, default=64, help="split: tensors of a part")
    options = parser.parse_args()
    if options.form == "split":
        options.out.mkdir(parents=True, exist_ok=True)
        split_gguf(options.model, options.out, options.tensors_each)
        return
    shard_bytes = options.shard_mb * 1_000_000 if options.shard_mb else None
    write_form(read_gguf(options.model), options.out, options.form, shard_bytes)


if __name__ == "__main__":
    main()
