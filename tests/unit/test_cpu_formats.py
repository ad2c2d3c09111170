"""The kernels decode every storage type: GGUF's as the `gguf` package does."""

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import pytest
from cpu_cases import KERNELS, KernelsUnderTest, random_tensor

from storage_cases import GGUF_TYPES, PLANE_TYPES, random_planes, values_of
from webllm.artifacts.checkpoint import StorageType
from webllm.backends.cpu.structs import PackingStruct


def decoded(
    kernels: KernelsUnderTest,
    dtype: StorageType,
    planes: Sequence[np.ndarray],
    rows: int,
    cols: int,
) -> np.ndarray:
    struct = PackingStruct(0, dtype, None, 0, rows, cols, 0, pair_head_dim=0)
    packing, out = kernels.allocate(PackingStruct.SIZE), kernels.allocate(4 * rows * cols)
    with ExitStack() as stack:
        sources = [
            stack.enter_context(kernels.source(memoryview(plane.tobytes()))) for plane in planes
        ]
        packing.write(0, struct.pack(sources))
        kernels.dequantize(packing.address, out.address)
    values = np.array(out.read(0, 4 * rows * cols)).view(np.float32).reshape(rows, cols)
    out.close()
    packing.close()
    return values


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", [*GGUF_TYPES, *PLANE_TYPES], ids=lambda dtype: dtype.name)
def test_dequantizes_random_blocks(name: str, dtype: StorageType) -> None:
    rng = np.random.default_rng(1)
    if dtype in PLANE_TYPES:
        planes = random_planes(rng, dtype, 4, 512)
    else:
        planes = [np.frombuffer(random_tensor(rng, dtype, 4, 512), np.uint8).reshape(4, -1)]
    kernels = KERNELS[name]()
    got = decoded(kernels, dtype, planes, 4, 512)
    hint = "see decode_group in blocks.h; `make .venv/.installed-dev` compiles it"
    np.testing.assert_array_equal(got, values_of(dtype, planes), err_msg=hint)
    kernels.close()


def test_reads_every_half() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16)
    expected = halves.view(np.float16).astype(np.float32)
    kernels = next(iter(KERNELS.values()))()
    got = decoded(kernels, StorageType.F16, [halves], 1, 1 << 16)[0]
    np.testing.assert_array_equal(got[~np.isnan(expected)], expected[~np.isnan(expected)])
    assert np.isnan(got[np.isnan(expected)]).all()
    kernels.close()
