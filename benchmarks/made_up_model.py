"""Writes a GGUF file of a model's shape with made-up Q4_0 weights, for a browser to load.

    python benchmarks/made_up_model.py llama-3.2-1b TOKENIZER.gguf OUT.gguf

The tokenizer and the size of the vocabulary are those of another file.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
from gpu_decode import SHAPES, MadeUpCheckpoint


def write(shape_name: str, tokenizer: gguf.GGUFReader, file: Path) -> None:
    texts = {name: field for name, field in tokenizer.fields.items() if "tokenizer." in name}
    vocab = len(texts["tokenizer.ggml.tokens"].contents())
    checkpoint = MadeUpCheckpoint(replace(SHAPES[shape_name], vocab=vocab))
    writer = gguf.GGUFWriter(file, "llama")
    for name, value in checkpoint.metadata.items():
        if isinstance(value, float):
            writer.add_float32(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
    for name, field in texts.items():
        kind, *item_kind = field.types
        writer.add_key_value(name, field.contents(), kind, *item_kind[-1:])
    for info in checkpoint.gguf_tensors:
        kind = gguf.GGMLQuantizationType[info.dtype.name]
        data = np.frombuffer(checkpoint.bytes_of(info), np.uint8)
        rows = data.reshape(*info.shape[:-1], -1)
        if kind is gguf.GGMLQuantizationType.F32:
            writer.add_tensor(info.name, rows.view(np.float32))
        else:
            writer.add_tensor(info.name, rows, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    write(options.shape, gguf.GGUFReader(options.tokenizer), options.out)


if __name__ == "__main__":
    main()
