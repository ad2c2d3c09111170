"""The WebGPU kernels are those stored here, by a checksum of their WGSL and constants.

A GPU's bits depend on its driver, so that no bits can be stored. Where a change of kernels fails
this test, store the new checksums, and if it changes logits on any device, raise FORMS_VERSION in
`webllm.backends.webgpu.backend`. Comments and spaces do not count.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any
from zlib import crc32

from browser.kernel_sources import VARIANTS, CollectingDevice, Kernel, kernels
from webllm.backends.webgpu.backend import FORMS_VERSION, WebGPUBackend
from webllm.backends.webgpu.device.protocol import AdapterInfo, AdapterKind
from webllm.backends.webgpu.kernels.variant import SCALAR, KernelVariant

INFO = AdapterInfo("H200", "NVIDIA", "580", "Vulkan", AdapterKind.DISCRETE, compiler="wgpu 1")

VERSION = 1
CHECKSUMS = {
    "scalar": "56dd0ac1",
    "workgroup": "9ed6a318",
    "workgroup_f32": "1bf21d08",
    "subgroup16": "7f0485c0",
    "subgroup32": "de761939",
}


def _content(kernel: Kernel) -> str:
    code = "".join(re.sub(r"//.*", "", kernel.source).split())
    return f"{kernel.limits} {sorted(kernel.constants.items())} {code}"


def test_kernels_are_those_of_their_version() -> None:
    found: dict[str, list[str]] = {name: [] for name in VARIANTS}
    for kernel in asyncio.run(kernels()):
        found[kernel.variant].append(_content(kernel))
    checksums = {
        name: f"{crc32(' '.join(sorted(contents)).encode()):08x}"
        for name, contents in found.items()
    }
    assert (FORMS_VERSION, checksums) == (VERSION, CHECKSUMS)


def forms(variant: KernelVariant, **info: Any) -> str:
    device: Any = CollectingDevice("", "large")
    device.info = replace(INFO, **info)
    return WebGPUBackend(device, variant).forms


def test_forms_name_all_that_compiles_the_kernels() -> None:
    assert [forms(variant) for variant in VARIANTS.values()] == [
        f"webgpu-{VERSION}-{kernels} (H200, NVIDIA, 580, Vulkan, wgpu 1)"
        for kernels in (
            "scalar", "i8-f16-0-1024", "f32-f16-0-1024", "i8-f16-16-1024", "i8-f16-32-1024"
        )
    ]  # fmt: skip
    for name in ("name", "vendor", "driver", "api", "compiler"):
        assert forms(SCALAR, **{name: "another"}) != forms(SCALAR)
    unknown_driver = forms(SCALAR, driver="", vendor="H200")
    assert unknown_driver == f"webgpu-{VERSION}-scalar (H200, Vulkan, wgpu 1)"
