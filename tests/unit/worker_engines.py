"""Engines for tests of worker processes, by name. They also print, as engines should not."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from fake_model import make_loaded

from webllm import ChatOptions, MLCEngine, MLCEngineConfig, ModelRecord
from webllm.api.completion import Completion, CompletionChoice
from webllm.api.requests import CompletionRequest, Resumable
from webllm.api.validation import completion_request
from webllm.artifacts.progress import InitProgressReport, Phase
from webllm.engine.loaded_model import LoadedModel
from webllm.errors import DeviceNotFoundError
from webllm.host import Host
from webllm.workers import frames


def numbers(config: MLCEngineConfig) -> MLCEngine:
    """Makes an engine with number models.

    "slow" blocks for half a second while it loads, "stuck" for a minute; "waits" never loads;
    "unwritable" fails with an error that is not valid UTF-8.
    """
    print("made with", config.device, config.num_threads, config.kv_cache_tokens, flush=True)
    return MLCEngine(config, load_model=_load_model)


def without_device(config: MLCEngineConfig) -> MLCEngine:
    raise DeviceNotFoundError(f"there is no {config.device}")


def short_frames(config: MLCEngineConfig) -> MLCEngine:
    """Makes an engine whose messages must be short."""
    frames.MAX_BYTES = 2000
    return numbers(config)


def sleeps(config: MLCEngineConfig) -> MLCEngine:
    print("asleep", flush=True)
    time.sleep(60)
    return numbers(config)


def exits(config: MLCEngineConfig) -> MLCEngine:
    os._exit(3)


def attaching(config: MLCEngineConfig) -> MLCEngine:
    """Makes an engine whose streams of texts begin where the client left off."""
    return _AttachingEngine(config, load_model=_load_model)


def dying(config: MLCEngineConfig) -> MLCEngine:
    """Makes an engine that the prompt "13" ends, and its process with it."""
    return _DyingEngine(config, load_model=_load_model)


class _AttachingEngine(MLCEngine):
    """Follows each number with the next one, slowly. Its answers are known without a journal."""

    async def completion(
        self, request: CompletionRequest | Mapping[str, object]
    ) -> Completion | AsyncGenerator[Completion, None]:
        checked = completion_request(request)
        if not checked.stream:
            return await super().completion(request)
        extra = checked.extra_body
        resumable = extra.resumable if extra else None
        print("resumable", resumable, flush=True)
        return self._stream(checked, resumable or Resumable())

    async def _stream(
        self, request: CompletionRequest, resumable: Resumable
    ) -> AsyncGenerator[Completion, None]:
        start = resumable.from_token or 0
        starts = start if isinstance(start, list) else [start] * (request.n or 1)
        max_tokens = request.max_tokens or 1000
        head: dict[str, Any] = {"id": resumable.session_id or "", "created": 1, "model": "numbers"}
        for i in range(min(starts), max_tokens):
            await asyncio.sleep(0.002)
            choices = [
                CompletionChoice(
                    index=index,
                    text=f"{int(request.prompt) + 1 + i} ",
                    finish_reason="length" if i + 1 == max_tokens else None,
                    logprobs=None,
                    token_ids=[int(request.prompt) + 1 + i],
                )
                for index, first in enumerate(starts)
                if i >= first
            ]
            yield Completion(choices=choices, **head)


class _DyingEngine(MLCEngine):
    async def completion(
        self, request: CompletionRequest | Mapping[str, object]
    ) -> Completion | AsyncGenerator[Completion, None]:
        if completion_request(request).prompt == "13":
            os._exit(1)
        return await super().completion(request)


async def _load_model(
    record: ModelRecord, options: ChatOptions, config: MLCEngineConfig, host: Host
) -> LoadedModel:
    os.write(1, b"noise of a library\n")
    assert config.init_progress_callback
    config.init_progress_callback(InitProgressReport(0.5, 1.0, f"{os.getpid()}", Phase.UPLOAD))
    if record.model_id == "unwritable":
        raise OSError("no file \udcff")
    if record.model_id == "waits":
        await asyncio.Event().wait()
    time.sleep({"slow": 0.5, "stuck": 60}.get(record.model_id, 0))
    return make_loaded(record.model_id, options, windows=4, host=host)
