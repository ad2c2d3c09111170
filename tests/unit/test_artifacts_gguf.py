"""GGUF files of the reference writer are read exactly; malformed files are refused."""

import importlib.util
import struct
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import gguf
import numpy as np
import pytest

from webllm.artifacts.checkpoint import GGUFTokenizer, StorageType
from webllm.artifacts.gguf.header import MoreBytesNeeded, parse_header
from webllm.artifacts.gguf.packed_arrays import StringArray
from webllm.artifacts.local_files import open_local
from webllm.errors import CheckpointError, ModelNotFoundError, UnsupportedModelError

GGML_TYPES = [dtype for dtype in StorageType if dtype.is_ggml]
SUPPORTED = [dtype for dtype in GGML_TYPES if dtype.supported]
UNSUPPORTED = [dtype for dtype in GGML_TYPES if not dtype.supported]


def write_gguf(path: Path, fill: Callable[[gguf.GGUFWriter], None]) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    fill(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def metadata_of(path: Path) -> Mapping[str, object]:
    tokenizer = open_local(path).tokenizer
    assert isinstance(tokenizer, GGUFTokenizer)
    return tokenizer.metadata


def raw_tensor(dtype: StorageType, rows: int = 3) -> np.ndarray:
    num_bytes = rows * 2 * dtype.block_bytes
    return (np.arange(num_bytes) % 251).astype(np.uint8).reshape(rows, -1)


def test_ggml_types_are_those_of_the_reference() -> None:
    assert {t.name: t.value for t in GGML_TYPES} == {
        t.name: t.value for t in gguf.GGMLQuantizationType
    }
    for dtype in SUPPORTED:
        sizes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(dtype)]
        assert (dtype.block_elements, dtype.block_bytes) == sizes


def test_metadata_of_every_type_comes_back(tmp_path: Path) -> None:
    numbers = {
        "uint8": 255, "int8": -128, "uint16": 65_535, "int16": -32_768, "uint32": 2**32 - 1,
        "int32": -(2**31), "uint64": 2**64 - 1, "int64": -(2**63), "float32": 0.5, "float64": 0.1,
        "bool": True,
    }  # fmt: skip
    arrays: dict[str, list[object]] = {
        "ints": [1, -2, 3],
        "floats": [0.5, 2.0],
        "bools": [True, False],
        "nested": [[1, 2], [3]],
        "words": ["", "ä", "▁the", "a" * 300],
    }

    def fill(writer: gguf.GGUFWriter) -> None:
        for kind, value in numbers.items():
            getattr(writer, f"add_{kind}")(f"k.{kind}", value)
        for name, values in arrays.items():
            writer.add_array(f"a.{name}", values)
        writer.add_string("k.text", "grüße\n")

    metadata = metadata_of(write_gguf(tmp_path / "m.gguf", fill))
    assert {kind: metadata[f"k.{kind}"] for kind in numbers} == numbers
    assert metadata["k.bool"] is True
    assert metadata["k.text"] == "grüße\n"
    assert metadata["general.architecture"] == "llama"
    assert metadata["a.ints"] == (1, -2, 3)
    assert metadata["a.floats"] == (0.5, 2.0)
    assert metadata["a.bools"] == (True, False)
    assert metadata["a.nested"] == ((1, 2), (3,))
    assert metadata["a.words"] == arrays["words"]


def test_string_array_is_a_sequence(tmp_path: Path) -> None:
    words = ["a", "", "ccc"]
    path = write_gguf(tmp_path / "m.gguf", lambda writer: writer.add_array("w", words))
    array = metadata_of(path)["w"]
    assert isinstance(array, StringArray)
    assert (list(array), len(array)) == (words, 3)
    assert (array[0], array[-1], array[1:], array[::-1]) == (
        "a", "ccc", ("", "ccc"), ("ccc", "", "a"),
    )  # fmt: skip
    assert ("ccc" in array, array.index("ccc"), array == ["a"]) == (True, 2, False)
    assert repr(array) == "<StringArray of 3: 'a', '', 'ccc'…>"
    for index in (3, -4):
        with pytest.raises(IndexError):
            array[index]


@pytest.mark.parametrize("dtype", SUPPORTED, ids=lambda dtype: dtype.name)
async def test_tensor_of_every_type_comes_back(tmp_path: Path, dtype: StorageType) -> None:
    raw = raw_tensor(dtype)

    def fill(writer: gguf.GGUFWriter) -> None:
        writer.add_tensor("first", np.ones(3, np.float32))
        writer.add_tensor("t", raw, raw_dtype=gguf.GGMLQuantizationType(dtype))

    with open_local(write_gguf(tmp_path / "m.gguf", fill)) as checkpoint:
        info = checkpoint.tensors["t"]
        assert (info.shape, info.dtype) == ((3, 2 * dtype.block_elements), dtype)
        assert (info.nbytes, checkpoint.nbytes) == (raw.nbytes, raw.nbytes + 12)
        assert info.planes[0].offset % 32 == 0
        [data] = await checkpoint.read("t", 0, 3)
        assert isinstance(data, memoryview)
        assert data.readonly
        assert bytes(data) == raw.tobytes()
        [data] = await checkpoint.read("t", 1, 1)
        assert isinstance(data, memoryview)
        assert bytes(data) == raw[1].tobytes()
        assert bytes(checkpoint.data("first")) == np.ones(3, np.float32).tobytes()


def test_shape_is_row_major_and_alignment_is_honoured(tmp_path: Path) -> None:
    def fill(writer: gguf.GGUFWriter) -> None:
        writer.add_custom_alignment(128)
        writer.add_tensor("a", np.zeros((5, 4, 3, 2), np.float16))
        writer.add_tensor("b", np.zeros(7, np.float32))

    checkpoint = open_local(write_gguf(tmp_path / "m.gguf", fill))
    assert [info.shape for info in checkpoint.tensors.values()] == [(5, 4, 3, 2), (7,)]
    assert all(info.planes[0].offset % 128 == 0 for info in checkpoint.tensors.values())


async def test_views_outlive_close(tmp_path: Path) -> None:
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    path = write_gguf(tmp_path / "m.gguf", lambda writer: writer.add_tensor("t", rows))
    checkpoint = open_local(path)
    [view] = await checkpoint.read("t", 0, 2)
    [other] = await checkpoint.read("t", 0, 2)
    assert isinstance(other, memoryview)
    array = np.frombuffer(other, np.float32)
    checkpoint.close()
    checkpoint.close()
    assert isinstance(view, memoryview)
    assert array.tolist() == np.frombuffer(view, np.float32).tolist() == list(range(8))
    assert checkpoint.config["model_type"] == "llama"
    with pytest.raises(CheckpointError, match="closed"):
        await checkpoint.read("t", 0, 1)


def test_unknown_tensor_and_missing_file(tmp_path: Path) -> None:
    path = write_gguf(
        tmp_path / "m.gguf", lambda writer: writer.add_tensor("known", np.zeros(4, np.float32))
    )
    with open_local(path) as checkpoint, pytest.raises(ModelNotFoundError, match=r"blk\.0"):
        checkpoint.data("blk.0")
    with pytest.raises(ModelNotFoundError, match="absent"):
        open_local(tmp_path / "absent.gguf")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelNotFoundError, match="no model"):
        open_local(tmp_path / "folder")
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(CheckpointError, match="empty"):
        open_local(tmp_path / "empty.gguf")


def test_big_endian_file_of_the_reference_writer_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedModelError, match="big endian"):
        open_local(tmp_path / "m.gguf")


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def entry(key: bytes, type_id: int, payload: bytes) -> bytes:
    return text(key) + struct.pack("<I", type_id) + payload


def tensor(name: bytes, sizes: list[int], dtype: int, offset: int = 0) -> bytes:
    shape = struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
    return text(name) + shape + struct.pack("<IQ", dtype, offset)


def gguf_bytes(
    entries: list[bytes] = [],  # noqa: B006 - never changed
    tensors: list[bytes] = [],  # noqa: B006
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    data_bytes: int = 0,
) -> bytes:
    num_tensors, num_entries = counts or (len(tensors), len(entries))
    header = b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_entries)
    header += b"".join(entries) + b"".join(tensors)
    return header + bytes(-len(header) % 32 + data_bytes)


def parse(data: bytes) -> object:
    return parse_header(memoryview(data), len(data))


def test_fingerprints_tell_headers_apart() -> None:
    files = [
        gguf_bytes([entry(b"k", 4, U32(value))], [tensor(b"t", [32], dtype)], data_bytes=128)
        for value, dtype in ((1, 0), (2, 0), (1, 1))
    ]
    whole = [parse_header(memoryview(file), len(file)) for file in files]
    assert len({header.fingerprint for header in whole}) == 3
    for file, header in zip(files, whole, strict=True):
        partly = parse_header(memoryview(file[:-128]), len(file))
        assert partly.fingerprint == header.fingerprint
        int(header.fingerprint, 16)
        assert len(header.fingerprint) == 8


HUGE = 2**64 - 1
U64 = struct.Struct("<Q").pack
U32 = struct.Struct("<I").pack
ALIGNMENT = b"general.alignment"
MALFORMED = {
    "magic": (b"GGML" + bytes(100), "begins with"),
    "short": (b"GGUF\x03", "magic number and version"),
    "no counts": (b"GGUF\x03\0\0\0", "tensor count"),
    "tensor count": (gguf_bytes(counts=(HUGE, 0), data_bytes=99), "announces 1844"),
    "entry count": (gguf_bytes(counts=(0, HUGE)), "metadata entries"),
    "long key": (gguf_bytes([U64(HUGE) + bytes(40)]), "takes 18446744073709551615 bytes"),
    "empty key": (gguf_bytes([entry(b"", 4, U32(1))]), "has 0 bytes"),
    "overlong key": (gguf_bytes([entry(b"k" * 65_536, 4, U32(1))]), "65536 bytes"),
    "key encoding": (gguf_bytes([entry(b"\xff", 4, U32(1))]), "not UTF-8"),
    "key twice": (gguf_bytes([entry(b"k", 4, U32(1))] * 2), "occurs twice"),
    "value type": (gguf_bytes([entry(b"k", 13, bytes(16))]), "value type 13"),
    "long string": (gguf_bytes([entry(b"k", 8, U64(2**63) + bytes(30))]), "value of 'k'"),
    "bool": (gguf_bytes([entry(b"k", 7, b"\2")]), "only 0 and 1"),
    "bool array": (gguf_bytes([entry(b"k", 9, U32(7) + U64(2) + b"\1\3")]), "only 0 and 1"),
    "array length": (gguf_bytes([entry(b"k", 9, U32(5) + U64(1 << 24))]), "the array 'k'"),
    "array limit": (gguf_bytes([entry(b"k", 9, U32(0) + U64(HUGE))]), "at most 16777216"),
    "string count": (gguf_bytes([entry(b"k", 9, U32(8) + U64(2**61))]), "elements of 'k'"),
    "string in array": (
        gguf_bytes([entry(b"k", 9, U32(8) + U64(2) + text(b"a") + U64(HUGE))]),
        "string 1 of 'k'",
    ),
    "element type": (gguf_bytes([entry(b"k", 9, U32(99) + U64(0))]), "element type 99"),
    "nesting": (gguf_bytes([entry(b"k", 9, (U32(9) + U64(1)) * 9)], data_bytes=64), "nests"),
    "alignment 0": (gguf_bytes([entry(ALIGNMENT, 4, U32(0))]), "power of two"),
    "alignment 24": (gguf_bytes([entry(ALIGNMENT, 4, U32(24))]), "power of two"),
    "alignment text": (gguf_bytes([entry(ALIGNMENT, 8, text(b"32"))]), "power of two"),
    "no dimensions": (gguf_bytes([], [tensor(b"t", [], 0)], data_bytes=32), "has 0 dimensions"),
    "5 dimensions": (gguf_bytes([], [tensor(b"t", [1] * 5, 0)], data_bytes=32), "5 dimensions"),
    "size 0": (gguf_bytes([], [tensor(b"t", [4, 0], 0)], data_bytes=32), "sizes have to be"),
    "overflow": (gguf_bytes([], [tensor(b"t", [2**32] * 4, 0)], data_bytes=32), "ends at byte"),
    "block": (gguf_bytes([], [tensor(b"t", [33], 8)], data_bytes=99), "multiple of 32"),
    "type": (gguf_bytes([], [tensor(b"t", [4], 5)], data_bytes=99), "type id 5"),
    "offset": (gguf_bytes([], [tensor(b"t", [4], 0, 4)], data_bytes=99), "alignment 32"),
    "far offset": (gguf_bytes([], [tensor(b"t", [4], 0, 2**63)], data_bytes=99), "ends at"),
    "truncated": (gguf_bytes([], [tensor(b"t", [4], 0)], data_bytes=15), "ends at byte"),
    "tensor twice": (gguf_bytes([], [tensor(b"t", [4], 0)] * 2, data_bytes=99), "occurs twice"),
    "overlap": (
        gguf_bytes([], [tensor(b"t", [16], 0), tensor(b"u", [16], 0, 32)], data_bytes=99),
        "overlaps",
    ),
    "name encoding": (gguf_bytes([], [tensor(b"\xc3", [4], 0)], data_bytes=99), "not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_header_is_refused(name: str) -> None:
    data, message = MALFORMED[name]
    with pytest.raises(CheckpointError, match=message):
        parse(data)


def test_path_is_named_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGML" + bytes(50))
    with pytest.raises(CheckpointError, match=r"m\.gguf: .*not a GGUF"):
        open_local(path)


@pytest.mark.parametrize("dtype", UNSUPPORTED, ids=lambda dtype: dtype.name)
def test_tensor_types_not_read_are_named(dtype: StorageType) -> None:
    with pytest.raises(UnsupportedModelError, match=f"stored as {dtype.name};.*Q4_K"):
        parse(gguf_bytes([], [tensor(b"t", [256], dtype)], data_bytes=999))


def test_a_type_of_another_format_is_unknown() -> None:
    with pytest.raises(CheckpointError, match="unknown type id 1010"):
        parse(gguf_bytes([], [tensor(b"t", [256], StorageType.AFFINE4)], data_bytes=999))


@pytest.mark.parametrize("version", [0, 1, 4, 1 << 24])
def test_versions_not_read_are_refused(version: int) -> None:
    with pytest.raises(UnsupportedModelError):
        parse(gguf_bytes(version=version))


def test_version_2_and_bytes_that_are_no_text() -> None:
    data = gguf_bytes([entry(b"k", 9, U32(8) + U64(1) + text(b"a\xff"))], version=2)
    header = parse_header(memoryview(data), len(data))
    assert header.version == 2
    words = header.metadata["k"]
    assert isinstance(words, StringArray)
    [word] = words
    assert word.encode("utf-8", "surrogateescape") == b"a\xff"


def test_header_can_be_read_from_a_growing_prefix() -> None:
    words = U32(8) + U64(3) + text(b"a") + text(b"b" * 20) + text(b"c")
    data = gguf_bytes([entry(b"k", 9, words)], [tensor(b"t", [64], 0)], data_bytes=256)
    shown, attempts = 0, 0
    while True:
        try:
            header = parse_header(memoryview(data)[:shown], len(data))
            break
        except MoreBytesNeeded as signal:
            assert shown < signal.num_bytes <= len(data)  # noqa: PT017
            shown, attempts = signal.num_bytes, attempts + 1
    assert attempts > 5
    assert shown <= len(data) - 256
    assert header == parse_header(memoryview(data), len(data))


@pytest.fixture(scope="module")
def fuzzer() -> ModuleType:
    path = Path(__file__).parents[1] / "fuzz" / "fuzz_gguf.py"
    spec = importlib.util.spec_from_file_location("fuzz_gguf", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_3000_mutated_files(fuzzer: ModuleType) -> None:
    outcomes = fuzzer.fuzz(3000)
    assert sum(outcomes.values()) == 3000
    assert min(outcomes[name] for name in ("parsed", "CheckpointError", "MoreBytesNeeded")) > 100


EMPTY = U32(0) + U64(0)
COSTLY = {
    "bytes": (entry(b"k", 9, U32(0) + U64(1 << 22) + bytes(range(256)) * (1 << 14)), None),
    "bools": (entry(b"k", 9, U32(7) + U64(1 << 22) + b"\0\1" * (1 << 21)), None),
    "ints": (entry(b"k", 9, U32(5) + U64(1 << 20) + b"\0\1\2\3" * (1 << 20)), None),
    "floats": (entry(b"k", 9, U32(6) + U64(1 << 20) + b"\0\1\2\3" * (1 << 20)), None),
    "strings": (entry(b"k", 9, U32(8) + U64(1 << 19) + U64(0) * (1 << 19)), None),
    "nested": (entry(b"k", 9, U32(9) + U64(1 << 18) + EMPTY * (1 << 18)), "at most 4096"),
    "nested deep": (
        entry(b"k", 9, U32(9) + U64(64) + (U32(9) + U64(1 << 15) + EMPTY * (1 << 15)) * 64),
        "at most 4032",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", COSTLY)
def test_a_header_costs_little_more_than_its_bytes(kind: str) -> None:
    """A tuple of numbers would take ten times as much."""
    array, refusal = COSTLY[kind]
    data = gguf_bytes([array])
    tracemalloc.start()
    try:
        if refusal is None:
            parse(data)
        else:
            with pytest.raises(CheckpointError, match=refusal):
                parse(data)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(data)
    finally:
        tracemalloc.stop()


def test_more_tensors_or_entries_than_any_model_has() -> None:
    one = tensor(b"", [1], 0)
    with pytest.raises(CheckpointError, match="65537 tensors; at most 65536"):
        parse(gguf_bytes(tensors=[one] * 65_537))
    entries = [entry(b"%d" % i, 0, b"\0") for i in range(65_537)]
    with pytest.raises(CheckpointError, match="65537 metadata entries; at most 65536"):
        parse(gguf_bytes(entries))
