"""Calls of `create` that a type checker accepts or refuses; mypy reads this file, nothing runs it.

An unneeded `ignore` is an error (mypy --strict), so each one marks a mistake that mypy finds.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import assert_type

from webllm import BlockingMLCEngine, MLCEngine
from webllm.api.chat_completion import ChatCompletion, ChatCompletionChunk
from webllm.api.completion import Completion
from webllm.engine.event_loop_thread import BlockingStream

messages = [{"role": "user", "content": "Hi"}]


async def chats(engine: MLCEngine, stream: bool) -> None:
    create = engine.chat.completions.create
    assert_type(await create(messages=messages), ChatCompletion)
    assert_type(await create(messages=messages, stream=False, max_tokens=5), ChatCompletion)
    chunks = await create(messages=messages, stream=True, stream_options={"include_usage": True})
    assert_type(chunks, AsyncGenerator[ChatCompletionChunk, None])
    await create(messages=messages, stream=stream, logit_bias={"50256": -100}, seed=None)
    await create(mesages=messages)  # type: ignore[call-overload]
    await create(messages=messages, temperature="hot")  # type: ignore[call-overload]
    await create(messages="Hi")  # type: ignore[arg-type]
    await create(max_tokens=5)  # type: ignore[call-overload]


async def completions(engine: MLCEngine) -> None:
    create = engine.completions.create
    assert_type(await create(prompt="Once", echo=True), Completion)
    assert_type(await create(prompt="Once", stream=True), AsyncGenerator[Completion, None])
    await create(prompt=["Once"])  # type: ignore[call-overload]
    await create(promt="Once")  # type: ignore[call-overload]


async def embeddings(engine: MLCEngine) -> None:
    await engine.embeddings.create(input=["a", "b"])
    await engine.embeddings.create(inputs=["a", "b"])  # type: ignore[call-arg]


def blocking(engine: BlockingMLCEngine) -> None:
    create = engine.chat.completions.create
    assert_type(create(messages=messages), ChatCompletion)
    assert_type(create(messages=messages, stream=True), BlockingStream[ChatCompletionChunk])
    create(mesages=messages)  # type: ignore[call-overload]
    assert_type(engine.completions.create(prompt="Once"), Completion)
    engine.completions.create(prompt="Once", max_token=1)  # type: ignore[call-overload]
