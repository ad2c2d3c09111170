"""Web Workers: a port over `postMessage`, the engine for pages and the handler for workers.

In a worker script:     handler = WebWorkerMLCEngineHandler()
in its page:            engine = await create_web_worker_mlc_engine(worker, "SmolLM2-135M-Instruct")
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import js
import msgspec
from pyodide.ffi import JsException, create_once_callable, create_proxy, to_js

from webllm.api.interface import MLCEngineInterface
from webllm.artifacts.browser.store import ask_to_keep
from webllm.config import ChatOptions, MLCEngineConfig
from webllm.errors import NonWorkerEnvironmentError, WorkerLostError
from webllm.workers.handler import MLCEngineHandler, OnCustomRequest
from webllm.workers.messages import HELLO, Greeting, Request, Return
from webllm.workers.port import OnClose, OnMessage, Unreadable
from webllm.workers.proxy import WorkerMLCEngine

_MAX_DEPTH = 256  # of nested lists and objects in a message
# Brackets, and strings, whose brackets do not count.
_BRACKETS = re.compile(r'[\[{\]}]|"[^"\\]*(?:\\.[^"\\]*)*"')


class BrowserPort:
    """A `Port` over a Worker, the global scope of a worker, or a `Home` of homes.js.

    end: called when the port is closed. Messages cross between the languages as JSON, in one call.

    No event tells that a worker was terminated. So a worker takes a Web Lock at its first "hello"
    and names it in its reply. The client waits for that lock, which is free once the worker ends.
    """

    def __init__(self, endpoint: Any, end: Callable[[], None]) -> None:
        self._endpoint = endpoint
        self._end = end
        self._on_message: OnMessage | None = None
        self._on_close: OnClose | None = None
        self._waiting: list[object] = []
        self._hello: str | None = None  # uuid of the last "hello" that was sent
        self._lock: str | None = None  # that this worker holds
        self._is_greeted = self._is_taking_lock = False
        self._closed: str | None = None  # why
        self._listeners = {
            "message": create_proxy(self._receive),
            "messageerror": create_proxy(lambda _: self._close("it sent what cannot be read")),
            "error": create_proxy(self._fail),
            "close": create_proxy(lambda event: self._close(str(event.detail))),
        }
        for kind, listener in self._listeners.items():
            endpoint.addEventListener(kind, listener)

    def listen(self, on_message: OnMessage, on_close: OnClose) -> None:
        self._on_message, self._on_close = on_message, on_close
        self._deliver()
        if self._closed is not None:
            on_close(self._closed)

    def post(self, message: object) -> None:
        if self._closed is not None:
            raise WorkerLostError("the port is closed; open a new one")
        if isinstance(message, Request) and message.kind == HELLO.name:
            self._hello = message.uuid
        elif isinstance(message, Return) and isinstance(message.content, Greeting):
            message.content.lock = self._lock
        self._endpoint.postMessage(js.JSON.parse(msgspec.json.encode(message).decode()))

    async def close(self) -> None:
        self._close("the port was closed")

    def _receive(self, event: Any) -> None:
        message = _read(event.data)
        match message:
            case None:
                return
            case {"kind": "hello", "uuid": str(uuid)} if not self._is_greeted:
                self._take_lock(uuid)
            case {"kind": "return", "uuid": str(uuid), "content": {"lock": str(lock)}} if (
                uuid == self._hello
            ):
                _await_lock(lock, lambda: self._close("it was terminated"))
        self._waiting.append(message)
        self._deliver()

    def _deliver(self) -> None:
        """Hands messages on in order, but none before the lock is taken that the reply names."""
        while self._waiting and self._on_message is not None and not self._is_taking_lock:
            self._on_message(self._waiting.pop(0))

    def _take_lock(self, name: str) -> None:
        def taken(has_lock: bool) -> None:
            self._lock = name if has_lock else None
            self._is_taking_lock = False
            self._deliver()

        self._is_greeted = self._is_taking_lock = True
        _hold_lock(name, taken)

    def _fail(self, event: Any) -> None:
        message = getattr(event, "message", None)  # none if the script cannot be loaded
        self._close(f"its script failed: {message or 'it could not be loaded'}")

    def _close(self, reason: str) -> None:
        if self._closed is not None:
            return
        self._closed = reason
        for kind, listener in self._listeners.items():
            self._endpoint.removeEventListener(kind, listener)
            listener.destroy()
        self._end()
        if self._on_close is not None:
            self._on_close(reason)


def _read(data: Any) -> object:
    """Returns plain data, None for `undefined`, or `Unreadable` for data that JSON cannot hold."""
    try:
        text = js.JSON.stringify(data)
        if text is None:
            return None
        _check_depth(text)
        return msgspec.json.decode(text)
    except (JsException, ValueError, RecursionError) as error:
        kind, uuid = getattr(data, "kind", None), getattr(data, "uuid", None)
        return Unreadable(kind, uuid, f"a message is made of plain data: {error}")


def _check_depth(text: str) -> None:
    """Raises ValueError for data nested so deep that decoding it would crash Python."""
    if text.count("[") + text.count("{") <= _MAX_DEPTH:
        return
    depth = 0
    for token in _BRACKETS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth > _MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {_MAX_DEPTH} levels")


def _hold_lock(name: str, then: Callable[[bool], None]) -> None:
    """Takes a lock until this worker ends, then calls `then`: True if it got the lock."""
    never = js.Promise.race(to_js([]))

    refused = create_once_callable(lambda _: then(False))

    def answer(lock: Any) -> Any:
        refused.destroy()  # which would keep the port for as long as the lock
        then(lock is not None)
        return never

    if locks := _locks():
        options = js.Object.fromEntries(to_js([["ifAvailable", True]]))
        held = locks.request(name, options, create_once_callable(answer))
        held.catch(refused)
    else:
        then(False)


def _await_lock(name: str, then: Callable[[], None]) -> None:
    """Calls `then` once the lock is free, which is when its worker has ended."""
    if locks := _locks():
        locks.request(name, create_once_callable(lambda _: then()))


def _locks() -> Any:
    """Returns the browser's LockManager; None on pages from neither https nor localhost."""
    return getattr(js.navigator, "locks", None)


def check_is_worker(class_name: str) -> None:
    """Raises NonWorkerEnvironmentError in a page, where this class serves nobody."""
    if not hasattr(js, "WorkerGlobalScope"):
        raise NonWorkerEnvironmentError(
            f"{class_name} was made in a page, where it would serve nobody; make it in a worker's "
            "script"
        )


class WebWorkerMLCEngineHandler(MLCEngineHandler):
    """Serves the page that made this worker, as soon as it is constructed.

    Raises NonWorkerEnvironmentError in a page.
    """

    def __init__(
        self,
        engine: MLCEngineInterface | None = None,
        config: MLCEngineConfig | None = None,
        *,
        on_custom_request: OnCustomRequest | None = None,
    ) -> None:
        check_is_worker("WebWorkerMLCEngineHandler")
        super().__init__(engine, config, on_custom_request=on_custom_request)
        self.serve(BrowserPort(js.self, js.self.close))


class WebWorkerMLCEngine(WorkerMLCEngine):
    """The engine in a Web Worker.

    worker: a JavaScript Worker whose script makes a handler; or a function that makes one, with
    which `restart` and `reload` replace a lost worker.
    """

    def __init__(self, worker: Any, config: MLCEngineConfig | None = None) -> None:
        async def open_port() -> BrowserPort:
            return _port_to(worker())

        can_reopen = callable(worker)
        port = _port_to(worker() if can_reopen else worker)
        super().__init__(port, config, open_port=open_port if can_reopen else None)


def _port_to(worker: Any) -> BrowserPort:
    return BrowserPort(worker, worker.terminate)


async def create_web_worker_mlc_engine(
    worker: Any,
    model_id: str | Sequence[str],
    config: MLCEngineConfig | None = None,
    chat_options: ChatOptions | Sequence[ChatOptions] | None = None,
) -> WebWorkerMLCEngine:
    """Makes a `WebWorkerMLCEngine` with models loaded; raises what `MLCEngine.reload` raises."""
    engine = WebWorkerMLCEngine(worker, config)
    if config is None or config.app_config.cache_backend != "none":
        await ask_to_keep()  # workers cannot ask for persistent storage
    await engine.reload(model_id, chat_options)
    return engine
