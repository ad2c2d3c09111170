"""Opens one device for the GPU tests: a real GPU if there is one, else Mesa's lavapipe.

Without any adapter every test here fails (install mesa-vulkan-drivers and libvulkan1); none skips.
"""

from collections.abc import Iterator

import pytest

from webllm.backends.webgpu.device.native import NativeDevice
from webllm.backends.webgpu.device.native_adapters import find_adapter


@pytest.fixture(scope="session")
def device() -> Iterator[NativeDevice]:
    opened = NativeDevice(find_adapter())
    yield opened
    opened.close()
