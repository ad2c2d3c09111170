"""The engine of a whole site, in a Service Worker or another worker that all its tabs share.

In a Service Worker's script, in JavaScript:     import "./service_worker.js";
in a page:     engine = await create_service_worker_mlc_engine("SmolLM2-135M-Instruct")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from webllm.api.interface import MLCEngineInterface
from webllm.config import ChatOptions, MLCEngineConfig
from webllm.workers.browser import BrowserPort
from webllm.workers.browser_shared_engine import HostName, SharedEngine, homes, loaded
from webllm.workers.handler import MLCEngineHandler, OnCustomRequest


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


class ServiceWorkerMLCEngine(SharedEngine):
    """The engine that all tabs of this site share; `create_service_worker_mlc_engine` makes one."""


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
    options = {"host": host, "keepAliveMs": keep_alive_ms} | ({"root": root} if root else {})
    engine = ServiceWorkerMLCEngine(await homes(options), config, persist)
    await loaded(engine, config, model_id, chat_options)
    return engine
