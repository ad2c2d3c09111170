"""Instantiates the WebAssembly variant of the kernels that is fastest in this browser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from js import Object, WebAssembly, performance
from pyodide.ffi import JsException, to_js

from webllm.errors import DeviceNotFoundError

VARIANTS = {  # the fastest first
    "relaxed": "WebAssembly relaxed SIMD",
    "simd128": "WebAssembly SIMD128",
}
PAGE_BYTES = 65536
_FOLDER = files("webllm.backends.cpu") / "lib"
_MAX_PAGES = 65535  # as in hatch_build.py
_INITIAL_PAGES = 64  # more than the kernels' data and stack


@dataclass(frozen=True, slots=True)
class WasmInstance:
    """An instance of a variant. `module` and `memory` start a thread's instance beside it."""

    isa: str
    forms: str  # see `kernels.Kernels`
    module: Any
    exports: Any
    memory: Any
    max_bytes: int  # `memory` can grow to this


def instantiate(names: tuple[str, ...] = tuple(VARIANTS)) -> WasmInstance:
    """Instantiates, for one thread, the first variant of `names` that works in this browser.

    Raises DeviceNotFoundError if none passes its self-test.
    """

    def make(module: Any) -> tuple[Any, Any, int]:
        exports = WebAssembly.Instance.new(module).exports
        return exports, exports.memory, (_MAX_PAGES + 1) * PAGE_BYTES

    return _first_correct({name: name for name in names}, make)


def instantiate_shared(names: tuple[str, ...] = tuple(VARIANTS)) -> WasmInstance:
    """Instantiates for several threads, on a memory that Web Workers can share."""
    now = performance.now.bind(performance)

    def make(module: Any) -> tuple[Any, Any, int]:
        memory, max_bytes = _shared_memory()
        imports = as_object({"env": {"memory": memory}, "host": {"now": now}})
        return WebAssembly.Instance.new(module, imports).exports, memory, max_bytes

    return _first_correct({name: f"{name}_threads" for name in names}, make)


def _first_correct(
    builds: dict[str, str], make: Callable[[Any], tuple[Any, Any, int]]
) -> WasmInstance:
    for name, build in builds.items():
        code = to_js((_FOLDER / f"webllm_cpu_{build}.wasm").read_bytes())
        if not WebAssembly.validate(code):
            continue
        module = WebAssembly.Module.new(code)
        exports, memory, max_bytes = make(module)
        if exports.self_test():
            # Without fused operations, relaxed SIMD computes as SIMD128 does, and as baseline.
            forms = "relaxed" if name == "relaxed" and exports.fuses() else "baseline"
            return WasmInstance(VARIANTS[name], forms, module, exports, memory, max_bytes)
    raise DeviceNotFoundError(
        f"none of the CPU kernels {list(builds)} runs in this browser; it needs WebAssembly "
        "with SIMD: update the browser"
    )


def _shared_memory() -> tuple[Any, int]:
    """Returns a shared memory and its largest size: 4 GiB, or less where a system refuses that."""
    pages = _MAX_PAGES
    while True:
        limits = {"initial": _INITIAL_PAGES, "maximum": pages, "shared": True}
        try:
            return WebAssembly.Memory.new(as_object(limits)), pages * PAGE_BYTES
        except JsException:
            pages //= 2
            if pages < 8192:
                raise


def as_object(fields: dict[str, Any]) -> Any:
    return to_js(fields, dict_converter=Object.fromEntries)
