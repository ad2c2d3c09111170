"""The WebAssembly modules of the kernels: which one runs in this browser, and its memory."""

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
_MOST_PAGES = 65535  # as in hatch_build.py
_FIRST_PAGES = 64  # more than the kernels' data and stack


@dataclass(frozen=True, slots=True)
class Kernels:
    """An instance of a variant, and all that another instance on the same memory needs."""

    isa: str
    module: Any
    exports: Any
    memory: Any
    most_bytes: int  # to which `memory` can grow


def open_kernels(names: tuple[str, ...] = tuple(VARIANTS)) -> Kernels:
    """For one thread: the first variant of `names` that this browser runs, and runs rightly.

    Raises DeviceNotFoundError.
    """

    def instantiate(module: Any) -> tuple[Any, Any, int]:
        exports = WebAssembly.Instance.new(module).exports
        return exports, exports.memory, (_MOST_PAGES + 1) * PAGE_BYTES

    return _first_right({name: name for name in names}, instantiate)


def open_shared_kernels(names: tuple[str, ...] = tuple(VARIANTS)) -> Kernels:
    """The same for several threads, on a memory that workers can share."""
    now = performance.now.bind(performance)

    def instantiate(module: Any) -> tuple[Any, Any, int]:
        memory, most_bytes = _shared_memory()
        imports = as_object({"env": {"memory": memory}, "host": {"now": now}})
        return WebAssembly.Instance.new(module, imports).exports, memory, most_bytes

    return _first_right({name: f"{name}_threads" for name in names}, instantiate)


def _first_right(
    libraries: dict[str, str], instantiate: Callable[[Any], tuple[Any, Any, int]]
) -> Kernels:
    for name, library in libraries.items():
        code = to_js((_FOLDER / f"webllm_cpu_{library}.wasm").read_bytes())
        if not WebAssembly.validate(code):
            continue
        module = WebAssembly.Module.new(code)
        exports, memory, most_bytes = instantiate(module)
        if exports.self_test():
            return Kernels(VARIANTS[name], module, exports, memory, most_bytes)
    raise DeviceNotFoundError(
        f"none of the CPU kernels {list(libraries)} runs in this browser; it needs WebAssembly "
        "with SIMD: update the browser"
    )


def _shared_memory() -> tuple[Any, int]:
    """A shared memory says at its start how far it may grow; some systems give no 4 GiB."""
    pages = _MOST_PAGES
    while True:
        limits = {"initial": _FIRST_PAGES, "maximum": pages, "shared": True}
        try:
            return WebAssembly.Memory.new(as_object(limits)), pages * PAGE_BYTES
        except JsException:
            pages //= 2
            if pages < 8192:
                raise


def as_object(fields: dict[str, Any]) -> Any:
    return to_js(fields, dict_converter=Object.fromEntries)
