"""The interface of a GPU, which `native.py` (wgpu) and `browser.py` (navigator.gpu) implement."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol


class JsBytes(Protocol):
    """A browser's Uint8Array: bytes outside of Python's memory."""

    byteLength: int  # noqa: N815 - JavaScript's name


Data = bytes | bytearray | memoryview | JsBytes  # JsBytes in a browser only


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


@dataclass(frozen=True, slots=True)
class Limits:
    max_buffer_bytes: int
    max_binding_bytes: int
    max_storage_buffers: int  # per shader stage
    max_workgroup_bytes: int
    max_workgroup_threads: int
    max_workgroups: int  # per dimension of a dispatch


@dataclass(frozen=True, slots=True)
class Features:
    shader_f16: bool
    subgroups: bool
    subgroup_min: int  # 0 without subgroups
    subgroup_max: int
    timestamps: bool


class Adapter(Protocol):
    """A GPU as a driver offers it."""

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
    """Part of a buffer, in bytes; offset is a multiple of 256."""

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
        binding it declares, numbered from 0. `proven`: every index in it is known to be in range
        and every loop to end, so that the driver's checks may be left out.

        May compile in the background: `record`, `prepare` or what `replay` gives raises
        DeviceError if it failed.
        """

    def write(self, target: Slice, data: Data) -> None:
        """Enqueues a copy from host memory, in order with replays.

        Zeros follow it up to a multiple of 4 bytes.
        """

    def record(self, dispatches: Sequence[Dispatch]) -> Recording:
        """Encodes dispatches for replay; each sees what those before it wrote.

        No buffer is bound both to be read and to be written by one dispatch, in whatever parts.
        """

    async def prepare(self, lay_out: Callable[[], Sequence[Dispatch]]) -> Recording:
        """As `record`, of what `lay_out` gives, while the event loop goes on: `lay_out` runs on
        another thread where there are threads, and the kernels are compiled when this returns.
        """

    def replay(self, recording: Recording, readback: Slice | None = None) -> Awaitable[bytes]:
        """Submits a recording at once; the awaitable gives the bytes of `readback` after it."""

    async def read(self, source: Slice) -> bytes:
        """The bytes of `source`, a multiple of 4, after everything submitted so far."""

    def memory_bytes(self) -> int | None:
        """Device memory if the driver tells, else None."""

    def close(self) -> None: ...
