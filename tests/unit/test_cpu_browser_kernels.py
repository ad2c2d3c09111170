"""The kernels in a browser, over a `js` of our own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class Bytes:
    """The part of Uint8Array that the kernels use."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.byteLength = len(data)

    @classmethod
    def new(cls, size: int) -> Bytes:
        return cls(memoryview(bytearray(size)))

    def subarray(self, start: int, end: int) -> Bytes:
        return Bytes(self.data[start:end])

    def assign(self, data: memoryview) -> None:
        self.data[:] = data

    def fill(self, value: int, start: int, end: int) -> None:
        self.data[start:end] = bytes([value]) * (end - start)


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    js, pyodide, ffi = ModuleType("js"), ModuleType("pyodide"), ModuleType("pyodide.ffi")
    js.__dict__.update(Uint8Array=Bytes, Object=None, WebAssembly=None, performance=None)
    ffi.__dict__.update(JsException=RuntimeError, to_js=None)
    for module in (js, pyodide, ffi):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    yield importlib.import_module("webllm.backends.cpu.browser")
    for name in ("browser", "browser_module"):  # they have imported our `js`
        del sys.modules[f"webllm.backends.cpu.{name}"]


def test_a_piece_that_fails_gives_its_memory_back(browser: Any) -> None:
    """Otherwise every failed load would leak the copy of a piece."""
    exports = SimpleNamespace(
        kv_element_bytes=lambda: 4, pool_create=lambda _: 0, __heap_base=SimpleNamespace(value=64)
    )
    memory = SimpleNamespace(buffer=1 << 16)
    instance = SimpleNamespace(
        isa="test", forms="test", exports=exports, memory=memory, max_bytes=1 << 16
    )
    kernels = browser.BrowserKernels(instance)
    before = kernels.available_bytes()

    def fail() -> None:
        with kernels.source(memoryview(b"\1" * 99)) as at:
            assert bytes(kernels.bytes.data[at : at + 99]) == b"\1" * 99
            raise ValueError("no such type")

    with pytest.raises(ValueError, match="no such type"):
        fail()
    assert kernels.available_bytes() == before
    assert not any(kernels.bytes.data)
