"""An engine in a worker that others use too, behind a `Home` of homes.js."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self, cast

import js
import msgspec
from pyodide.ffi import JsException, to_js

from webllm.artifacts.browser.store import ask_to_keep
from webllm.browser_javascript import browser_module, settled, typed_error
from webllm.config import AppConfig, ChatOptions, MLCEngineConfig
from webllm.errors import ConfigError, WorkerLostError
from webllm.workers.browser import BrowserPort
from webllm.workers.proxy import Recovery, WorkerMLCEngine

OpenHome = Callable[[], Any]  # returns a new Home of homes.js
HostName = Literal["service-worker", "shared-worker", "tab", "offscreen"]


async def homes(options: Mapping[str, object]) -> OpenHome:
    """Returns a function that opens the next `Home`; it raises ConfigError for wrong options."""
    module = await browser_module("webllm_homes", "webllm.workers", "homes.js")

    def open_home() -> Any:
        try:
            return module.Home.new(to_js(options, dict_converter=js.Object.fromEntries))
        except JsException as error:
            raise typed_error(error, ConfigError) from None

    return open_home


class SharedEngine(WorkerMLCEngine):
    """The browser may end its worker at any time.

    The next call then starts another, which loads the models again, and answers under way go on
    without a token lost.
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


async def loaded(
    engine: SharedEngine,
    config: MLCEngineConfig | None,
    model_id: str | Sequence[str] | None,
    chat_options: ChatOptions | Sequence[ChatOptions] | None,
) -> None:
    """Waits for the worker of a new engine, and loads its models; closes it if that fails."""
    try:
        await engine.connected()
        if model_id is not None:
            if config is None or config.app_config.cache_backend != "none":
                await ask_to_keep()  # workers cannot ask for persistent storage
            await engine.reload(model_id, chat_options)
    except BaseException:
        await engine.close()
        raise
