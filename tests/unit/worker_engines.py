"""Engines for tests of worker processes, by name. They also print, as engines should not."""

from __future__ import annotations

import asyncio
import os
import time

from fake_model import make_loaded

from webllm import ChatOptions, MLCEngine, MLCEngineConfig, ModelRecord
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
