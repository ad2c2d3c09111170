"""ops.h and structs.py describe the same ops, blocks.h and checkpoint.py the same types."""

from __future__ import annotations

import re
from pathlib import Path
from struct import Struct

import pytest

from webllm.artifacts.checkpoint import MAX_PLANES, StorageType
from webllm.backends.cpu import structs
from webllm.backends.cpu.structs import OpKind

OPS_H = (Path(structs.__file__).parent / "ops.h").read_text()
LETTERS = {"Address": "Q", "uint32_t": "I", "float": "f"}


def _kinds() -> list[str]:
    [names] = re.findall(r"enum \{\s*(OP_.*?),?\s*\};", OPS_H, re.DOTALL)
    return re.split(r",\s*", names)


def _fields_in_c(kind: OpKind) -> str:
    """Returns the letters of the fields of an op's struct, as in `struct`."""
    union = OPS_H.split("union {")[1].split("}")[0]
    members = re.findall(r"^ +(\w+Op) \w+;$", union, re.MULTILINE)
    assert len(members) == len(OpKind), "the union of ops.h has one member for each kind, in order"
    [body] = re.findall(rf"^typedef struct \{{([^}}]*)\}} {members[kind]};", OPS_H, re.MULTILINE)
    fields = re.findall(r"^ +(\w+) ([\w, ]+);", body, re.MULTILINE)
    return "".join(LETTERS[type_] * len(each.split(",")) for type_, each in fields)


def test_the_kinds_have_the_same_numbers() -> None:
    assert [f"OP_{kind.name}" for kind in OpKind] == _kinds()
    assert [kind.value for kind in OpKind] == list(range(len(OpKind)))


def test_storage_types_have_the_same_numbers() -> None:
    text = (Path(structs.__file__).parent / "blocks.h").read_text()
    named = {name: int(number) for name, number in re.findall(r"TYPE_(\w+) = (\d+)", text)}
    supported = (dtype.unpacked_as for dtype in StorageType if dtype.supported)
    assert named == {dtype.name: dtype.value for dtype in supported}
    assert f"#define MAX_PLANES {MAX_PLANES}\n" in text
    assert max(len(dtype.plane_bytes) for dtype in StorageType if dtype.supported) == MAX_PLANES


@pytest.mark.parametrize("kind", OpKind, ids=lambda kind: kind.name)
def test_the_fields_have_the_same_types_and_order(kind: OpKind) -> None:
    packed = structs._FIELDS[kind]
    assert Struct(f"<{_fields_in_c(kind)}").format == _spelled_out(packed.format)
    [union_bytes] = re.findall(r"uint8_t bytes\[(\d+)\];", OPS_H)
    assert structs._HEAD.size + packed.size <= structs.OP_BYTES
    assert structs._HEAD.size + int(union_bytes) == structs.OP_BYTES


def _spelled_out(format: str) -> str:
    """Returns "<QQI" for "<2QI"."""
    return re.sub(r"(\d+)(\w)", lambda match: match[2] * int(match[1]), format)
