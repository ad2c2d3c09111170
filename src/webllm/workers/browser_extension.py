"""The engine of a Chrome extension, behind ports of `chrome.runtime`.

In the extension's background:   handler = ExtensionServiceWorkerMLCEngineHandler(port)
in a popup or a web page:        engine = await create_extension_service_worker_mlc_engine(model)
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import js
from pyodide.ffi import create_proxy

from webllm.api.interface import MLCEngineInterface
from webllm.config import ChatOptions, MLCEngineConfig
from webllm.errors import ConfigError, NonWorkerEnvironmentError
from webllm.workers.browser import BrowserPort
from webllm.workers.browser_service_worker import ServiceWorkerMLCEngineHandler
from webllm.workers.browser_shared_engine import OpenHome, SharedEngine, homes, loaded


class ExtensionServiceWorkerMLCEngineHandler(ServiceWorkerMLCEngineHandler):
    """Serves the ports of an extension with the engine of this Python.

    It receives what comes after it was made. A background worker should therefore use the
    JavaScript class of this name, which receives messages while Python starts, and keeps the engine
    in the extension's offscreen document, where it has threads.

    Raises NonWorkerEnvironmentError where webllm's own scripts have not started Python. The other
    arguments are those of `ServiceWorkerMLCEngineHandler`.
    """

    def __init__(
        self,
        port: Any,
        engine: MLCEngineInterface | None = None,
        config: MLCEngineConfig | None = None,
        **options: Any,
    ) -> None:
        super().__init__(engine, config, **options)
        self.port: Any = None  # the one that was set last; None once it is disconnected
        self.set_port(port)

    def set_port(self, port: Any) -> None:
        """Serves one more port. Raises ConfigError for one from outside of the extension."""
        origin = str(port.sender.origin)
        if origin != str(js.location.origin):
            raise ConfigError(
                f"the port comes from {origin}, which may not see what this handler serves; the "
                "handler of extension_service_worker.js lets it ask for answers alone"
            )
        try:
            homes_module = importlib.import_module("webllm_homes")
        except ImportError as error:
            raise NonWorkerEnvironmentError(
                "this Python was not started by webllm's boot.js, which has the JavaScript of "
                "ports; start it so, or use the handler of extension_service_worker.js"
            ) from error
        self.port = port
        self.serve(BrowserPort(homes_module.PortEndpoint.new(port), lambda: self._end(port)))

    def _end(self, port: Any) -> None:
        port.disconnect()
        self.on_port_disconnect(port)

    def on_port_disconnect(self, port: Any) -> None:
        if self.port is not None and self.port == port:
            self.port = None


class ExtensionServiceWorkerMLCEngine(SharedEngine):
    """The engine of an extension; `create_extension_service_worker_mlc_engine` makes one."""

    def __init__(
        self,
        open_home: OpenHome,
        config: MLCEngineConfig | None,
        persist: bool,
        on_disconnect: Callable[[], None] | None,
    ) -> None:
        self._on_home_close = create_proxy(lambda _: on_disconnect and on_disconnect())

        def open_watched() -> Any:
            home = open_home()
            home.addEventListener("close", self._on_home_close)
            return home

        super().__init__(open_watched, config, persist)

    async def close(self) -> None:
        try:
            await super().close()
        finally:
            self._home.removeEventListener("close", self._on_home_close)
            self._on_home_close.destroy()


async def create_extension_service_worker_mlc_engine(
    model_id: str | Sequence[str] | None = None,
    config: MLCEngineConfig | None = None,
    chat_options: ChatOptions | Sequence[ChatOptions] | None = None,
    keep_alive_ms: float = 10_000,
    *,
    extension_id: str | None = None,
    on_disconnect: Callable[[], None] | None = None,
    persist: bool = True,
) -> ExtensionServiceWorkerMLCEngine:
    """Connects to the engine of a Chrome extension, with a model loaded if one is named.

    keep_alive_ms: between two messages that keep the extension's background worker alive, in
    milliseconds. extension_id: whose engine it is, by default that of this page's extension. Web
    pages have to name one, whose manifest lists them. on_disconnect: called each time that the
    connection ends: the port is disconnected, the engine has ended (also if it only sleeps), or
    nobody has answered the first message. The next call connects again. persist: False keeps
    answers in memory alone; then the end of the worker raises WorkerLostError in those under way.

    Raises ConfigError for wrong settings, ServiceWorkerInitializationError if there is no such
    extension or it does not let this page in, and what `MLCEngine.reload` raises.
    """
    options: dict[str, object] = {"host": "extension", "keepAliveMs": keep_alive_ms}
    if extension_id is not None:
        options["extensionId"] = extension_id
    open_home = await homes(options)
    engine = ExtensionServiceWorkerMLCEngine(open_home, config, persist, on_disconnect)
    await loaded(engine, config, model_id, chat_options)
    return engine
