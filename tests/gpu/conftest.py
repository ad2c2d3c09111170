"""One device for the GPU tests: a real GPU if there is one, else Mesa's lavapipe.

Without any adapter every test here fails (install mesa-vulkan-drivers and libvulkan1); none skips.
"""

from collections.abc import Iterator

import pytest

from webllm.gpu.native import NativeDevice, open_device


@pytest.fixture(scope="session")
def device() -> Iterator[NativeDevice]:
    opened = open_device()
    yield opened
    opened.close()
