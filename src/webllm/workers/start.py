"""The start of an engine in another process: the first message, and its answer.

Knows neither how the process is started nor what carries the messages.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any, cast

import msgspec

from webllm.api.interface import MLCEngineInterface
from webllm.config import DEVICE_SETTINGS, MLCEngineConfig
from webllm.errors import ConfigError, WorkerLostError
from webllm.workers.messages import AnyReply, Throw, new_uuid, read_reply
from webllm.workers.port import Port

ENGINE_FACTORY = "webllm.engine.engine:MLCEngine"


class Start(msgspec.Struct, kw_only=True, frozen=True):
    """The first message to the process, from which it makes its engine. It gets a reply."""

    uuid: str
    engine_factory: str  # "module:function"
    settings: dict[str, Any]  # of MLCEngineConfig, by their names in DEVICE_SETTINGS

    @classmethod
    def of(cls, config: MLCEngineConfig, engine_factory: str) -> Start:
        """Raises ConfigError for logit processors, which cannot be sent."""
        if config.logit_processor_registry:
            raise ConfigError(
                "logit_processor_registry cannot cross to another process; register the processors "
                "there, in a function named by engine_factory='my_module:make_engine'"
            )
        settings = {name: getattr(config, name) for name in DEVICE_SETTINGS}
        return cls(uuid=new_uuid(), engine_factory=engine_factory, settings=settings)

    def make_engine(self) -> MLCEngineInterface:
        """Calls the factory; raises what it raises, and ConfigError if there is none."""
        module, _, function = self.engine_factory.partition(":")
        try:
            factory = getattr(import_module(module), function)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"engine_factory is {self.engine_factory!r}, which cannot be imported: {error}; "
                "give 'module:function' of a module that can be imported"
            ) from error
        return cast(MLCEngineInterface, factory(MLCEngineConfig(**self.settings)))


def sent_settings(config: MLCEngineConfig) -> MLCEngineConfig:
    """Returns the settings that messages carry, for the client's own engine object."""
    return MLCEngineConfig(
        app_config=config.app_config,
        init_progress_callback=config.init_progress_callback,
        log_level=config.log_level,
    )


async def ask_first(port: Port, message: object) -> Any:
    """Posts the first message of a new port, and returns the content of the reply.

    Raises what the other end throws, and WorkerLostError if it ends or answers nonsense. After an
    error the port is closed.
    """
    answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    def receive(message: object) -> None:
        if not answer.done():
            answer.set_result(message)

    def lose(reason: str) -> None:
        if not answer.done():
            answer.set_exception(WorkerLostError(f"the worker did not start: {reason}"))

    try:
        port.listen(receive, lose)
        port.post(message)
        reply = _read(await answer)
        if isinstance(reply, Throw):
            raise reply.rebuilt()
    except BaseException:
        await port.close()
        raise
    return getattr(reply, "content", None)


def _read(message: object) -> AnyReply:
    try:
        return read_reply(message)
    except msgspec.ValidationError as error:
        raise WorkerLostError(
            f"the worker did not start: it sent what is no answer: {error}"
        ) from None
