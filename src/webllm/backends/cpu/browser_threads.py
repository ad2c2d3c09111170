"""Threads in a browser: Web Workers that run the kernels on one shared memory.

A page has shared memory only where its server isolates it from other origins, by the headers
`Cross-Origin-Opener-Policy: same-origin` and `Cross-Origin-Embedder-Policy: require-corp`.
"""

from __future__ import annotations

import asyncio
import logging
from importlib.resources import files
from typing import Any

import js
from pyodide.ffi import JsException, create_proxy

from webllm.backends.cpu.browser import BrowserHost
from webllm.backends.cpu.browser_kernels import as_object, open_kernels, open_shared_kernels
from webllm.errors import DeviceError, WebLLMError

_log = logging.getLogger(__name__)

_MAX_DEFAULT_THREADS = 8  # also of a phone, whose other cores are slow
_MAX_THREADS = 64  # as in threads.h
_STACK_BYTES = 1 << 20
_START_TIMEOUT_S = 20


async def open_browser_host(num_threads: int | None) -> BrowserHost:
    """With `num_threads`, by default one for each core, where there can be threads; else with one.

    Raises DeviceNotFoundError if no kernels run here.
    """
    cores = min(int(js.navigator.hardwareConcurrency), _MAX_DEFAULT_THREADS)
    wanted = min(num_threads or cores, _MAX_THREADS)
    if wanted > 1 and _can_have_threads():
        try:
            return await _with_threads(wanted)
        except (WebLLMError, JsException, TimeoutError) as error:
            _log.warning("the CPU kernels run with one thread: %s", error or "no thread starts")
    return BrowserHost(open_kernels())


def _can_have_threads() -> bool:
    """A thread waits for others, which browsers allow in dedicated workers only."""
    in_worker = hasattr(js, "DedicatedWorkerGlobalScope")
    return in_worker and bool(getattr(js, "crossOriginIsolated", False))


async def _with_threads(num_threads: int) -> BrowserHost:
    host = BrowserHost(open_shared_kernels(), num_threads)
    script = _script_url()
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            await asyncio.gather(*(_start(host, id, script) for id in range(1, num_threads)))
    except BaseException:
        host.close()
        raise
    return host


async def _start(host: BrowserHost, id: int, script: str) -> None:
    """Starts a worker, and waits until it is about to enter the pool."""
    worker = js.Worker.new(script)
    host.helpers.append(worker)
    answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def take(event: Any) -> None:
        if not answered.done():
            answered.set_result(event.type)

    listener = create_proxy(take)
    try:
        worker.onmessage = worker.onerror = listener
        stack = host.allocate(_STACK_BYTES)
        start = {"stack": stack.address + _STACK_BYTES, "pool": host.pool, "id": id}
        shared = {"module": host.kernels.module, "memory": host.kernels.memory}
        worker.postMessage(as_object({**start, **shared}))
        if await answered != "message":
            raise DeviceError(f"the worker {script} does not start")
    finally:
        worker.onmessage = worker.onerror = None
        listener.destroy()


def _script_url() -> str:
    """Where our boot.js started Python, its site has the script; else a copy of it in memory."""
    try:
        from webllm_threads import url  # type: ignore[import-not-found]
    except ImportError:
        code = (files("webllm.backends.cpu") / "thread.js").read_text()
        return str(
            js.URL.createObjectURL(js.Blob.new([code], as_object({"type": "text/javascript"})))
        )
    return str(url)
