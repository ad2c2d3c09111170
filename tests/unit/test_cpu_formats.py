"""Every GGML type is read as the `gguf` package reads it."""

import numpy as np
import pytest
from cpu_cases import HOSTS, TYPES, random_tensor
from gguf.quants import dequantize

from webllm.artifacts.checkpoint import GGMLType


@pytest.mark.parametrize("host_name", HOSTS)
@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: dtype.name)
def test_dequantizes_random_blocks(host_name: str, dtype: GGMLType) -> None:
    data = random_tensor(np.random.default_rng(1), dtype, 4, 512)
    expected = dequantize(np.frombuffer(data, np.uint8).reshape(4, -1), dtype)
    host = HOSTS[host_name]()
    out = host.allocate(4 * 2048)
    with host.source(memoryview(data)) as source:
        host.dequantize(dtype, source, 2048, out.address)
    got = np.array(out.read(0, 4 * 2048)).view(np.float32).reshape(4, 512)
    np.testing.assert_array_equal(got, expected)
    out.close()
    host.close()


def test_reads_every_half() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16)
    expected = halves.view(np.float16).astype(np.float32)
    host = next(iter(HOSTS.values()))()
    out = host.allocate(4 << 16)
    with host.source(memoryview(halves.tobytes())) as source:
        host.dequantize(GGMLType.F16, source, 1 << 16, out.address)
    got = np.array(out.read(0, 4 << 16)).view(np.float32)
    np.testing.assert_array_equal(got[~np.isnan(expected)], expected[~np.isnan(expected)])
    assert np.isnan(got[np.isnan(expected)]).all()
    out.close()
    host.close()
