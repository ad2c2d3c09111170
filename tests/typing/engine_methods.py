"""Types of engines behind a port or without async; mypy reads this file, nothing runs it."""

from __future__ import annotations

from typing import assert_type

from webllm import BlockingMLCEngine, MLCEngine, WorkerMLCEngine
from webllm.api.completion import Completion
from webllm.api.embedding import CreateEmbeddingResponse
from webllm.api.interface import MLCEngineInterface
from webllm.workers import messages as m


async def in_a_worker(engine: WorkerMLCEngine) -> None:
    assert_type(await engine.get_message(), str)
    assert_type(await engine.get_message(model_id="m"), str)
    assert_type(await engine.forward_tokens_and_sample([1, 2], True, "m"), int)
    assert_type(await engine.get_max_storage_buffer_binding_size(), int)
    await engine.reset_chat(True)
    await engine.reload("m", on_progress=print)
    await engine.get_message(5)  # type: ignore[arg-type]
    await engine.get_message(model="m")  # type: ignore[call-arg]
    await engine.forward_tokens_and_sample([1, 2])  # type: ignore[call-arg]
    assert_type(await engine._call(m.COMPLETION), Completion)
    assert_type(await engine._call(m.EMBEDDING), CreateEmbeddingResponse)
    assert_type(await engine._call(m.CUSTOM_REQUEST), object)


def all_are_engines(here: MLCEngine, there: WorkerMLCEngine) -> list[MLCEngineInterface]:
    return [here, there]


def without_async(engine: BlockingMLCEngine) -> None:
    assert_type(engine.get_message(), str)
    assert_type(engine.forward_tokens_and_sample([1, 2], is_prefill=True), int)
    engine.reload("m", on_progress=print)
    engine.get_message(5)  # type: ignore[arg-type]
    engine.reload("m", on_progres=print)  # type: ignore[call-arg]
