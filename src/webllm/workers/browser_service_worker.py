"""The engine of a whole site, in a Service Worker or another worker that all its tabs share.

In a Service Worker's script, in JavaScript:     import "./service_worker.js";
in a page:     engine = await create_service_worker_mlc_engine("SmolLM2-135M-Instruct")
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self, cast

import js
import msgspec
from pyodide.ffi import JsException, to_js

from webllm.api.interface import MLCEngineInterface
from webllm.artifacts.browser.store import ask_to_keep
from webllm.browser_javascript import browser_module, settled, typed_error
from webllm.config import AppConfig, ChatOptions, MLCEngineConfig
from webllm.errors import ConfigError, WorkerLostError
from webllm.workers.browser import BrowserPort
from webllm.workers.handler import MLCEngineHandler, OnCustomRequest
from webllm.workers.proxy import Recovery, WorkerMLCEngine

OpenHome = Callable[[], Any]  # returns a new Home of homes.js
HostName = Literal["service-worker", "shared-worker", "tab"]


class ServiceWorkerMLCEngineHandler(MLCEngineHandler):
    """Serves all tabs of a site with one engine, which loads the models that they share once.

    JavaScript receives the messages, also before Python has started, and hands each client over by
    `serve_endpoint`: the value of the Python code that the JavaScript class of this name is given.
    """

    def __init__(
        self,
        engine: MLCEngineInterface | None = None,
        config: MLCEngineConfig | None = None,
        *,
        on_custom_request: OnCustomRequest | None = None,
        grace_s: float = 30.0,
    ) -> None:
        super().__init__(
            engine,
            config,
            reuse_loaded=True,
            on_custom_request=on_custom_request,
            grace_s=grace_s,
        )

    def serve_endpoint(self, endpoint: Any) -> None:
        """Serves one client, an object of the worker's JavaScript."""
        self.serve(BrowserPort(endpoint, lambda: None))


class ServiceWorkerMLCEngine(WorkerMLCEngine):
    """The engine that all tabs of this site share; `create_service_worker_mlc_engine` makes one.

    The browser may end its worker at any time. The next call then starts another, which loads the
    models again, and answers under way go on without a token lost.
    """

    def __init__(self, open_home: OpenHome, config: MLCEngineConfig | None, persist: bool) -> None:
        self._open_home = open_home
        super().__init__(
            self._port(), config, open_port=self._open_port_again, recovery=Recovery(persist)
        )

    def set_app_config(self, app_config: AppConfig) -> None:
        """Sets the catalogue for the next `reload`; paths in it are those of this page."""
        records = tuple(
            msgspec.structs.replace(record, model=_with_url(record.model))
            for record in app_config.model_list
        )
        super().set_app_config(msgspec.structs.replace(app_config, model_list=records))

    @property
    def host(self) -> HostName:
        """Which worker has the engine."""
        return cast(HostName, str(self._home.host))

    @property
    def missed_heartbeat(self) -> int:
        """How many beats in a row the worker has not answered; after three it counts as lost."""
        return int(self._home.missedHeartbeat)

    async def connected(self) -> Self:
        """Waits until the worker has answered.

        Raises NoServiceWorkerAPIError, ServiceWorkerInitializationError.
        """
        try:
            await settled(self._home.ready)
        except JsException as error:
            raise typed_error(error, WorkerLostError) from None
        return self

    def _port(self) -> BrowserPort:
        self._home = self._open_home()
        return BrowserPort(self._home, self._home.close)

    async def _open_port_again(self) -> BrowserPort:
        port = self._port()
        try:
            await self.connected()
        except BaseException:
            await port.close()
            raise
        return port


def _with_url(model: str) -> str:
    """Returns the URL of a path, since the worker may be elsewhere; other sources as they are."""
    is_path = re.match(r"[a-z][a-z0-9.+-]+:", model, re.IGNORECASE) is None
    return str(js.URL.new(model, js.document.baseURI).href) if is_path else model


async def create_service_worker_mlc_engine(
    model_id: str | Sequence[str] | None = None,
    config: MLCEngineConfig | None = None,
    chat_options: ChatOptions | Sequence[ChatOptions] | None = None,
    keep_alive_ms: float = 10_000,
    *,
    host: HostName | Literal["auto"] = "auto",
    root: str | None = None,
    persist: bool = True,
) -> ServiceWorkerMLCEngine:
    """Connects to the engine that all tabs of this site share, with a model loaded if one is named.

    It is in the site's Service Worker if that has a GPU; in a SharedWorker if only that has one;
    else in a Web Worker of one tab, since only there the CPU's kernels have threads. If that tab is
    closed, another one takes over.

    keep_alive_ms: between two questions whether the worker is alive, in milliseconds; it is lost if
    it does not answer three in a row. host: forces one of them. root: the folder of webllm's static
    files, by default what the Service Worker knows. persist: False keeps answers in memory alone;
    then the end of the worker raises WorkerLostError in those under way.

    Raises ConfigError for wrong settings, NoServiceWorkerAPIError,
    ServiceWorkerInitializationError, and what `MLCEngine.reload` raises.
    """
    homes = await browser_module("webllm_homes", "webllm.workers", "homes.js")
    options = {"host": host, "keepAliveMs": keep_alive_ms} | ({"root": root} if root else {})

    def open_home() -> Any:
        try:
            return homes.Home.new(to_js(options, dict_converter=js.Object.fromEntries))
        except JsException as error:
            raise typed_error(error, ConfigError) from None

    engine = ServiceWorkerMLCEngine(open_home, config, persist)
    try:
        await engine.connected()
        if model_id is not None:
            if config is None or config.app_config.cache_backend != "none":
                await ask_to_keep()  # workers cannot ask for persistent storage
            await engine.reload(model_id, chat_options)
    except BaseException:
        await engine.close()
        raise
    return engine
