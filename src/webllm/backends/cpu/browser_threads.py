"""Threads in a browser: Web Workers that run the kernels on one shared memory.

A page gets shared memory only if its server isolates it from other origins, with the headers
`Cross-Origin-Opener-Policy: same-origin` and `Cross-Origin-Embedder-Policy: require-corp`.
"""

from __future__ import annotations

import asyncio
import logging
from importlib.resources import files
from typing import Any

import js
from pyodide.ffi import JsException, create_proxy

from webllm.backends.cpu.browser import BrowserKernels
from webllm.backends.cpu.browser_module import as_object, instantiate, instantiate_shared
from webllm.errors import DeviceError, WebLLMError

_log = logging.getLogger(__name__)

_MAX_DEFAULT_THREADS = 8  # a phone has as many cores, half of them slow
_MAX_THREADS = 64  # as in threads.h
_STACK_BYTES = 1 << 20
_START_TIMEOUT_S = 20


async def open_browser_kernels(num_threads: int | None) -> BrowserKernels:
    """Opens the kernels with `num_threads`, or with one where a page cannot have threads.

    `num_threads`: None for the number of cores, at most 8. Raises DeviceNotFoundError if no
    kernels run here.
    """
    cores = min(int(js.navigator.hardwareConcurrency), _MAX_DEFAULT_THREADS)
    wanted = min(num_threads or cores, _MAX_THREADS)
    if wanted > 1 and _can_have_threads():
        try:
            return await _with_threads(wanted)
        except (WebLLMError, JsException, TimeoutError) as error:
            _log.warning("the CPU kernels run with one thread: %s", error or "no thread starts")
    return BrowserKernels(instantiate())


def _can_have_threads() -> bool:
    """Returns whether this page can have threads; browsers let only dedicated workers block."""
    in_worker = hasattr(js, "DedicatedWorkerGlobalScope")
    return in_worker and bool(getattr(js, "crossOriginIsolated", False))


async def _with_threads(num_threads: int) -> BrowserKernels:
    kernels = BrowserKernels(instantiate_shared(), num_threads)
    script = _script_url()
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            await asyncio.gather(*(_start(kernels, id, script) for id in range(1, num_threads)))
    except BaseException:
        kernels.close()
        raise
    return kernels


async def _start(kernels: BrowserKernels, id: int, script: str) -> None:
    """Starts a worker and waits until it is about to enter the thread pool."""
    worker = js.Worker.new(script)
    kernels.workers.append(worker)
    answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def take(event: Any) -> None:
        if not answered.done():
            answered.set_result(event.type)

    listener = create_proxy(take)
    try:
        worker.onmessage = worker.onerror = listener
        stack = kernels.allocate(_STACK_BYTES)
        start = {"stack": stack.address + _STACK_BYTES, "pool": kernels.pool, "id": id}
        shared = {"module": kernels.instance.module, "memory": kernels.instance.memory}
        worker.postMessage(as_object({**start, **shared}))
        if await answered != "message":
            raise DeviceError(f"the worker {script} does not start")
    finally:
        worker.onmessage = worker.onerror = None
        listener.destroy()


def _script_url() -> str:
    """Returns the script's URL on the site whose boot.js started Python, else that of a copy."""
    try:
        from webllm_threads import url  # type: ignore[import-not-found]
    except ImportError:
        code = (files("webllm.backends.cpu") / "thread.js").read_text()
        return str(
            js.URL.createObjectURL(js.Blob.new([code], as_object({"type": "text/javascript"})))
        )
    return str(url)
