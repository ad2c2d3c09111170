"""The kernels decode every GGML type as the `gguf` package does."""

import numpy as np
import pytest
from cpu_cases import KERNELS, TYPES, random_tensor
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from webllm.artifacts.checkpoint import StorageType


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: dtype.name)
def test_dequantizes_random_blocks(name: str, dtype: StorageType) -> None:
    data = random_tensor(np.random.default_rng(1), dtype, 4, 512)
    expected = dequantize(np.frombuffer(data, np.uint8).reshape(4, -1), GGMLQuantizationType(dtype))
    kernels = KERNELS[name]()
    out = kernels.allocate(4 * 2048)
    with kernels.source(memoryview(data)) as source:
        kernels.dequantize(dtype, source, 2048, out.address)
    got = np.array(out.read(0, 4 * 2048)).view(np.float32).reshape(4, 512)
    hint = "see decode_group in formats.h; `make .venv/.installed-dev` compiles it"
    np.testing.assert_array_equal(got, expected, err_msg=hint)
    out.close()
    kernels.close()


def test_reads_every_half() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16)
    expected = halves.view(np.float16).astype(np.float32)
    kernels = next(iter(KERNELS.values()))()
    out = kernels.allocate(4 << 16)
    with kernels.source(memoryview(halves.tobytes())) as source:
        kernels.dequantize(StorageType.F16, source, 1 << 16, out.address)
    got = np.array(out.read(0, 4 << 16)).view(np.float32)
    np.testing.assert_array_equal(got[~np.isnan(expected)], expected[~np.isnan(expected)])
    assert np.isnan(got[np.isnan(expected)]).all()
    out.close()
    kernels.close()
