"""Web Workers: a port over `postMessage`, the worker's end and the page's.

In a worker script:     handler = WebWorkerMLCEngineHandler()
in its page:            engine = await create_web_worker_mlc_engine(worker, "SmolLM2-135M-Instruct")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import js
import msgspec
from pyodide.ffi import create_once_callable, create_proxy, to_js

from webllm.api.interface import MLCEngineInterface
from webllm.artifacts.browser_quota import ask_to_keep
from webllm.config import ChatOptions, MLCEngineConfig
from webllm.errors import WorkerLostError
from webllm.workers.handler import MLCEngineHandler, OnCustomRequest
from webllm.workers.messages import Hello
from webllm.workers.port import OnClose, OnMessage
from webllm.workers.proxy import WorkerMLCEngine


class BrowserPort:
    """See `Port`. `endpoint` has `postMessage`: a Worker, or a worker's own global scope.

    Messages cross between the languages as JSON: one call each, however many values they have.
    No event tells that a worker was terminated. So whoever is greeted takes a lock with the
    greeting's name before it answers, and whoever greeted waits for that lock.
    """

    def __init__(self, endpoint: Any, end: Callable[[], None]) -> None:
        self._endpoint = endpoint
        self._end = end
        self._on_message: OnMessage | None = None
        self._on_close: OnClose | None = None
        self._waiting: list[object] = []
        self._greeting: str | None = None  # not answered yet
        self._listeners = {
            "message": create_proxy(self._receive),
            "error": create_proxy(self._fail),
        }
        for kind, listener in self._listeners.items():
            endpoint.addEventListener(kind, listener)

    def listen(self, on_message: OnMessage, on_close: OnClose) -> None:
        self._on_message, self._on_close = on_message, on_close
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            on_message(message)

    def post(self, message: object) -> None:
        if not self._listeners:
            raise WorkerLostError("the port is closed; open a new one")
        if isinstance(message, Hello):
            self._greeting = message.uuid
        self._endpoint.postMessage(js.JSON.parse(msgspec.json.encode(message).decode()))

    async def close(self) -> None:
        self._close("the port was closed")

    def _receive(self, event: Any) -> None:
        text = js.JSON.stringify(event.data)
        if text is None:
            return  # `undefined`, no message of ours
        message = msgspec.json.decode(text)
        match message:
            case {"kind": "hello", "uuid": str(uuid)}:
                _hold_lock(uuid, lambda: self._deliver(message))
            case {"uuid": str(uuid)} if uuid == self._greeting:
                self._greeting = None
                _await_lock(uuid, lambda: self._close("it was terminated"))
                self._deliver(message)
            case _:
                self._deliver(message)

    def _deliver(self, message: object) -> None:
        if self._on_message is None:
            self._waiting.append(message)
        else:
            self._on_message(message)

    def _fail(self, event: Any) -> None:
        self._close(f"its script failed: {event.message or 'it could not be loaded'}")

    def _close(self, reason: str) -> None:
        listeners, self._listeners = self._listeners, {}
        for kind, listener in listeners.items():
            self._endpoint.removeEventListener(kind, listener)
            listener.destroy()
        if listeners:
            self._end()
            if self._on_close is not None:
                self._on_close(reason)


def _hold_lock(name: str, then: Callable[[], None]) -> None:
    """Holds a lock for as long as this worker lives, and goes on."""
    never = js.Promise.race(to_js([]))

    def granted(_: Any) -> Any:
        then()
        return never

    if locks := _locks():
        locks.request(name, create_once_callable(granted))
    else:
        then()


def _await_lock(name: str, then: Callable[[], None]) -> None:
    if locks := _locks():
        locks.request(name, create_once_callable(lambda _: then()))


def _locks() -> Any:
    """None where the page is not served over https or from localhost."""
    return getattr(js.navigator, "locks", None)


class WebWorkerMLCEngineHandler(MLCEngineHandler):
    """Serves the page that made this worker, from its construction on."""

    def __init__(
        self,
        engine: MLCEngineInterface | None = None,
        config: MLCEngineConfig | None = None,
        *,
        on_custom_request: OnCustomRequest | None = None,
    ) -> None:
        super().__init__(engine, config, on_custom_request=on_custom_request)
        self.serve(BrowserPort(js.self, js.self.close))


class WebWorkerMLCEngine(WorkerMLCEngine):
    """The engine in `worker`, a JavaScript Worker whose script makes a handler.

    With a function that makes such a Worker instead, `restart` and `reload` replace one that is
    lost.
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
    """A `WebWorkerMLCEngine` with models loaded; raises what `MLCEngine.reload` raises."""
    engine = WebWorkerMLCEngine(worker, config)
    if config is None or config.app_config.cache_backend != "none":
        ask_to_keep()  # a worker cannot
    await engine.reload(model_id, chat_options)
    return engine
