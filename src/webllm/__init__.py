"""Runs language models on WebGPU and on CPUs from Python, with WebLLM's API.

    from webllm import MLCEngine

    async with MLCEngine() as engine:
        await engine.reload("SmolLM2-135M-Instruct")
        reply = await engine.chat.completions.create(messages=[{"role": "user", "content": "Hi"}])

Names are imported when they are first used, so that `import webllm` costs nothing. Those of a
browser's workers exist in a browser only; `create_service_worker_mlc_engine` is the daemon's in
CPython.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from webllm.host import THIS_HOST

__version__ = "0.1.0"  # the package's metadata take it from here

if TYPE_CHECKING:
    from webllm.artifacts.progress import InitProgressReport
    from webllm.config import (
        AppConfig,
        ChatOptions,
        MLCEngineConfig,
        ModelRecord,
        prebuilt_app_config,
    )
    from webllm.engine.blocking import BlockingMLCEngine, create_blocking_mlc_engine
    from webllm.engine.engine import MLCEngine, create_mlc_engine
    from webllm.engine.model_store import (
        delete_chat_config_in_cache,
        delete_model_all_info_in_cache,
        delete_model_in_cache,
        has_model_in_cache,
        model_from_file,
    )
    from webllm.errors import WebLLMError
    from webllm.server.openai_client import openai_client
    from webllm.server.openai_transport import BlockingOpenAITransport, OpenAITransport
    from webllm.workers.browser import WebWorkerMLCEngine as WebWorkerMLCEngine
    from webllm.workers.browser import WebWorkerMLCEngineHandler as WebWorkerMLCEngineHandler
    from webllm.workers.browser import create_web_worker_mlc_engine as create_web_worker_mlc_engine
    from webllm.workers.browser_extension import (
        ExtensionServiceWorkerMLCEngine as ExtensionServiceWorkerMLCEngine,
    )
    from webllm.workers.browser_extension import (
        ExtensionServiceWorkerMLCEngineHandler as ExtensionServiceWorkerMLCEngineHandler,
    )
    from webllm.workers.browser_extension import (
        create_extension_service_worker_mlc_engine as create_extension_service_worker_mlc_engine,
    )
    from webllm.workers.browser_service_worker import (
        ServiceWorkerMLCEngine as ServiceWorkerMLCEngine,
    )
    from webllm.workers.browser_service_worker import (
        ServiceWorkerMLCEngineHandler as ServiceWorkerMLCEngineHandler,
    )
    from webllm.workers.daemon_client import DaemonMLCEngine as DaemonMLCEngine
    from webllm.workers.daemon_client import (
        create_service_worker_mlc_engine as create_service_worker_mlc_engine,
    )
    from webllm.workers.handler import MLCEngineHandler
    from webllm.workers.process import create_worker_process
    from webllm.workers.proxy import WorkerMLCEngine

_HOMES = {
    "AppConfig": "config",
    "BlockingMLCEngine": "engine.blocking",
    "BlockingOpenAITransport": "server.openai_transport",
    "ChatOptions": "config",
    "DaemonMLCEngine": "workers.daemon_client",
    "InitProgressReport": "artifacts.progress",
    "MLCEngine": "engine.engine",
    "MLCEngineConfig": "config",
    "MLCEngineHandler": "workers.handler",
    "ModelRecord": "config",
    "OpenAITransport": "server.openai_transport",
    "WebLLMError": "errors",
    "ExtensionServiceWorkerMLCEngine": "workers.browser_extension",
    "ExtensionServiceWorkerMLCEngineHandler": "workers.browser_extension",
    "ServiceWorkerMLCEngine": "workers.browser_service_worker",
    "ServiceWorkerMLCEngineHandler": "workers.browser_service_worker",
    "WebWorkerMLCEngine": "workers.browser",
    "WebWorkerMLCEngineHandler": "workers.browser",
    "WorkerMLCEngine": "workers.proxy",
    "create_blocking_mlc_engine": "engine.blocking",
    "create_extension_service_worker_mlc_engine": "workers.browser_extension",
    "create_mlc_engine": "engine.engine",
    "create_service_worker_mlc_engine": "workers.daemon_client",
    "create_web_worker_mlc_engine": "workers.browser",
    "create_worker_process": "workers.process",
    "openai_client": "server.openai_client",
    "delete_chat_config_in_cache": "engine.model_store",
    "delete_model_all_info_in_cache": "engine.model_store",
    "delete_model_in_cache": "engine.model_store",
    "has_model_in_cache": "engine.model_store",
    "model_from_file": "engine.model_store",
    "prebuilt_app_config": "config",
}

_BROWSER_HOMES = (
    "workers.browser",
    "workers.browser_extension",
    "workers.browser_service_worker",
)

__all__ = [
    "AppConfig",
    "BlockingMLCEngine",
    "BlockingOpenAITransport",
    "ChatOptions",
    "InitProgressReport",
    "MLCEngine",
    "MLCEngineConfig",
    "MLCEngineHandler",
    "ModelRecord",
    "OpenAITransport",
    "WebLLMError",
    "WorkerMLCEngine",
    "create_blocking_mlc_engine",
    "create_mlc_engine",
    "create_service_worker_mlc_engine",
    "create_worker_process",
    "delete_chat_config_in_cache",
    "delete_model_all_info_in_cache",
    "delete_model_in_cache",
    "has_model_in_cache",
    "model_from_file",
    "openai_client",
    "prebuilt_app_config",
]

if THIS_HOST.is_browser:
    __all__ += ["WebWorkerMLCEngine", "WebWorkerMLCEngineHandler", "create_web_worker_mlc_engine"]
    __all__ += ["ServiceWorkerMLCEngine", "ServiceWorkerMLCEngineHandler"]
    __all__ += ["ExtensionServiceWorkerMLCEngine", "ExtensionServiceWorkerMLCEngineHandler"]
    __all__ += ["create_extension_service_worker_mlc_engine"]
    _HOMES["create_service_worker_mlc_engine"] = "workers.browser_service_worker"
else:
    __all__ += ["DaemonMLCEngine"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'webllm' has no attribute {name!r}")
    home = _HOMES[name]
    if home in _BROWSER_HOMES and not THIS_HOST.is_browser:
        raise ImportError(
            f"webllm.{name} is for a browser's workers and exists in a browser only; here "
            "create_worker_process and create_service_worker_mlc_engine start a worker"
        )
    if home == "workers.daemon_client" and THIS_HOST.is_browser:
        raise ImportError(
            f"webllm.{name} is for CPython and does not exist in a browser; here "
            "create_service_worker_mlc_engine returns a ServiceWorkerMLCEngine"
        )
    return getattr(import_module(f"webllm.{home}"), name)
