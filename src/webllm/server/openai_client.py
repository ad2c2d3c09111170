"""Connects OpenAI's Python client to an engine in the same process. The user installs `openai`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from webllm.api.interface import MLCEngineInterface
from webllm.engine.blocking import BlockingMLCEngine
from webllm.errors import ConfigError
from webllm.server.openai_transport import BlockingOpenAITransport, OpenAITransport

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

# The client wants an address and a key; the transport ignores both.
_URL = "http://webllm/v1"
_KEY = "none"


@overload
def openai_client(engine: BlockingMLCEngine) -> OpenAI: ...
@overload
def openai_client(engine: MLCEngineInterface) -> AsyncOpenAI: ...
def openai_client(engine: BlockingMLCEngine | MLCEngineInterface) -> OpenAI | AsyncOpenAI:
    """Returns an OpenAI client whose requests `engine` answers; an async one for an async engine.

    Closing the client does not close the engine. Raises ConfigError without the package `openai`.
    """
    try:
        import openai
    except ImportError as error:
        raise ConfigError("openai_client needs the package `openai`: pip install openai") from error
    if isinstance(engine, BlockingMLCEngine):
        transport: Any = BlockingOpenAITransport(engine)
        client = openai.DefaultHttpxClient(transport=transport)
        return openai.OpenAI(base_url=_URL, api_key=_KEY, http_client=client)
    transport = OpenAITransport(engine)
    async_client = openai.DefaultAsyncHttpxClient(transport=transport)
    return openai.AsyncOpenAI(base_url=_URL, api_key=_KEY, http_client=async_client)
