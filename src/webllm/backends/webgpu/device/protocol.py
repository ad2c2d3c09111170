"""The interface of a GPU, implemented by `native.py` (wgpu) and `browser.py` (navigator.gpu)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from webllm.artifacts.checkpoint import JsBytes
from webllm.errors import DeviceError, DeviceMemoryError

Data = bytes | bytearray | memoryview | JsBytes  # JsBytes in a browser only
_ALIGNMENT = 256  # of bindings, in bytes


class AdapterKind(Enum):
    DISCRETE = "discrete GPU"
    INTEGRATED = "integrated GPU"
    VIRTUAL = "virtual GPU"
    SOFTWARE = "software"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    name: str
    vendor: str
    driver: str
    api: str  # Vulkan, Metal, D3D12, ...
    kind: AdapterKind
    pci_id: int = 0  # device << 16 | vendor; 0 if the driver does not say
    compiler: str = ""  # of WGSL: the library or browser, with its version


@dataclass(frozen=True, slots=True)
class Limits:
    max_buffer_bytes: int
    max_binding_bytes: int
    max_storage_buffers: int  # per shader stage
    max_workgroup_bytes: int
    max_workgroup_threads: int
    max_workgroups: int  # per dimension of a dispatch

    def buffer_bytes(self, num_bytes: int, label: str, device: str) -> int:
        """Returns the size of a new buffer; raises DeviceMemoryError if that is too large."""
        size = aligned(max(num_bytes, 1))
        if size > self.max_buffer_bytes:
            raise DeviceMemoryError(
                f"{label or 'a buffer'} takes {size} bytes; {device} allows "
                f"{self.max_buffer_bytes} a buffer: use a smaller model or context"
            )
        return size

    def check_workgroups(self, dispatch: Dispatch, device: str) -> None:
        """Raises DeviceError for a dispatch of too many workgroups."""
        if max(dispatch.workgroups) > self.max_workgroups:
            raise DeviceError(
                f"{dispatch.label or 'a kernel'}: {dispatch.workgroups} workgroups, {device} "
                f"allows {self.max_workgroups} a dimension"
            )


def aligned(num_bytes: int) -> int:
    """Returns the next offset at which a slice of a buffer may begin."""
    return -(-num_bytes // _ALIGNMENT) * _ALIGNMENT


@dataclass(frozen=True, slots=True)
class Features:
    """The optional features that kernels use, and WebGPU's names of all that the GPU has."""

    subgroups: bool
    subgroup_min: int  # threads; 0 without subgroups
    subgroup_max: int
    names: frozenset[str] = frozenset()  # such as "shader-f16"


class Adapter(Protocol):
    """A GPU that a driver offers."""

    @property
    def info(self) -> AdapterInfo: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def features(self) -> Features: ...
    @property
    def reason(self) -> str | None:
        """Why the adapter is used only when it is asked for; None if it may be chosen."""

    @property
    def handle(self) -> Any:
        """The driver's own object: a wgpu.GPUAdapter, or a browser's GPUAdapter."""


class Buffer(Protocol):
    """Device memory usable as storage, copy source and copy destination."""

    size: int

    def destroy(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Slice:
    """Part of a buffer, in bytes; see `aligned` for the offset."""

    buffer: Buffer
    offset: int
    size: int


class Pipeline(Protocol):
    """A compiled kernel; opaque."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One kernel launch: bindings[i] is bound at @group(0) @binding(i)."""

    pipeline: Pipeline
    bindings: tuple[Slice, ...]
    workgroups: tuple[int, int, int]
    label: str = ""


class Recording(Protocol):
    """Dispatches encoded for replay; opaque."""


class Device(Protocol):
    """A GPU in use. Writes and replays take effect in the order of the calls."""

    info: AdapterInfo
    limits: Limits
    features: Features

    def buffer(self, num_bytes: int, label: str = "") -> Buffer:
        """Zeroed memory, rounded up to 256 bytes; raises DeviceMemoryError."""

    def pipeline(
        self,
        source: str,
        constants: Mapping[str, float] | None = None,
        label: str = "",
        proven: bool = False,
    ) -> Pipeline:
        """Compiles WGSL whose entry point is `main`; built once per (source, constants).

        `source` has no `enable` directives: the device adds those of its features. It uses every
        binding that it declares; they are numbered from 0. `proven`: all its indexes are known to
        be in range and all its loops to end (docs/kernel-contract.md), so that the driver's checks
        may be left out.

        It may compile in the background: `record`, `prepare` or the result of `replay` raises
        DeviceError if that fails.
        """

    def write(self, target: Slice, data: Data) -> None:
        """Enqueues a copy from host memory, in order with replays; `data` can be reused at once.

        The data is padded with zeros to a multiple of 4 bytes.
        """

    def record(self, dispatches: Sequence[Dispatch]) -> Recording:
        """Encodes dispatches for replay; each sees what those before it wrote.

        A dispatch must not bind one buffer both for reading and for writing, even different parts.
        """

    async def prepare(self, lay_out: Callable[[], Sequence[Dispatch]]) -> Recording:
        """Records the dispatches that `lay_out` returns, without blocking the event loop.

        `lay_out` runs on another thread where there are threads. When this returns, the kernels
        are compiled.
        """

    def replay(self, recording: Recording, readback: Slice | None = None) -> Awaitable[bytes]:
        """Submits a recording at once; the awaitable returns the bytes of `readback` after it."""

    async def read(self, source: Slice) -> bytes:
        """Returns the bytes of `source`, a multiple of 4, after everything submitted so far."""

    def memory_bytes(self) -> int | None:
        """Returns the device's memory; None if that is not known."""

    def close(self) -> None: ...
