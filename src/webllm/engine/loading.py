"""Loads a model: opens the file, records the program, plans the memory, uploads, warms up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from webllm.artifacts.auto import open_model
from webllm.artifacts.checkpoint import Checkpoint, StorageType
from webllm.artifacts.hub_access import HubAccess
from webllm.artifacts.integrity import Integrity
from webllm.artifacts.progress import Phase, ProgressReporter
from webllm.artifacts.source import HUB_URL
from webllm.backends.auto import open_backend
from webllm.backends.protocol import Backend
from webllm.config import ChatOptions, MLCEngineConfig, ModelRecord
from webllm.engine.background import ignore_result, in_background, to_its_end
from webllm.engine.block_manager import BlockManager
from webllm.engine.device_fit import require_fit
from webllm.engine.host_sampler import HostSampler
from webllm.engine.loaded_model import LoadedModel
from webllm.engine.loop import GenerationLoop
from webllm.engine.model_text import known_overrides, make_tokenizer, with_defaults
from webllm.engine.runner import Runner
from webllm.engine.scheduler import Scheduler, StepLimits
from webllm.errors import DeviceMemoryError, UnsupportedModelError
from webllm.host import Host
from webllm.models import registry
from webllm.ops.padding import padded
from webllm.ops.program import BatchShape, Program

_log = logging.getLogger(__name__)

DEFAULT_CONTEXT_TOKENS = 4096

ModelLoader = Callable[[ModelRecord, ChatOptions, MLCEngineConfig, Host], Awaitable[LoadedModel]]


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """A model on its way to a device: what is uploaded, and the largest step."""

    backend: Backend
    checkpoint: Checkpoint
    program: Program
    context_window_size: int  # tokens
    num_blocks: int  # of the KV cache
    memory_bytes: int  # of weights and KV cache
    limits: StepLimits

    @property
    def max_batch(self) -> BatchShape:
        block_size = self.program.kv_cache.block_size
        return BatchShape(
            max_tokens=self.limits.max_tokens,
            max_seqs=self.limits.max_sequences,
            max_outputs=self.limits.max_sequences,
            max_blocks=-(-self.context_window_size // block_size),
        )


async def load_model(
    record: ModelRecord, options: ChatOptions, config: MLCEngineConfig, host: Host
) -> LoadedModel:
    """Loads a model. The device is opened while the model is fetched.

    Raises what the steps raise: artifact, checkpoint, model and device errors.
    """
    started = time.perf_counter()
    await require_fit(record, config, host)
    async with _opening_backend(config) as opening:
        with await _open(record, config) as checkpoint:
            options = options.over(await known_overrides(record, config.app_config))
            if options.quantize is not None:
                checkpoint.quantize(StorageType[options.quantize.upper()])
            # Building a tokenizer is Python's work and repacking weights is not: both run at once.
            tokenizing = asyncio.create_task(
                in_background(host, make_tokenizer, checkpoint, options)
            )
            try:
                context = context_window(checkpoint, options)
                program, weights = padded(registry.record(checkpoint, context), checkpoint)
                await asyncio.wait([opening])  # does not cancel it; `_opening_backend` closes it
                plan = plan_memory(opening.result(), program, weights, context, config, host)
                await upload(plan, config)
                runner = await warm_up(plan, record.model_id, config)
            except BaseException:
                tokenizing.add_done_callback(ignore_result)
                tokenizing.cancel()
                raise
            tokenizer, chat_format = await tokenizing
    loop = GenerationLoop(new_scheduler(plan, config), runner, host)
    model = LoadedModel(
        model_id=record.model_id,
        options=with_defaults(options, checkpoint),
        context_window_size=context,
        tokenizer=tokenizer,
        chat_format=chat_format,
        vocab_size=program.vocab_size,
        weights=checkpoint.fingerprint,
        memory_bytes=plan.memory_bytes,
        loop=loop,
    )
    _log.info(
        "%s on %s: context of %d tokens, KV cache of %d, after %.1f s",
        model.model_id,
        model.device_name,
        context,
        model.kv_cache_tokens,
        time.perf_counter() - started,
    )
    return model


async def _open(record: ModelRecord, config: MLCEngineConfig) -> Checkpoint:
    """Opens the model of a record, fetched if necessary; raises what `open_model` raises."""
    if record.model_manifest is not None:
        raise UnsupportedModelError(
            f"{record.model_id} has the model_manifest {record.model_manifest!r}, which names "
            "tasks such as images and audio that are not run here; leave it out for text alone"
        )
    app, integrity = config.app_config, None
    if (promised := record.integrity) is not None:
        if promised.model_lib is not None:
            _log.info("%s: integrity.model_lib is not checked: it is not used", record.model_id)
        integrity = Integrity(promised.hashes, promised.on_failure != "warn")
    hub = HubAccess(app.hub_url or HUB_URL, app.hub_token)
    progress = config.init_progress_callback
    return await open_model(record.source, app.cache_backend, progress, hub, integrity)


@asynccontextmanager
async def _opening_backend(config: MLCEngineConfig) -> AsyncIterator[asyncio.Task[Backend]]:
    """Opens the device and tests its kernels in a task; closes it if the block raises."""
    opening = asyncio.create_task(open_backend(config.device, config.num_threads))
    try:
        yield opening
    except BaseException:
        opening.cancel()
        await to_its_end(_close_opened(opening))
        raise


async def _close_opened(opening: asyncio.Task[Backend]) -> None:
    await asyncio.wait([opening])
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def context_window(checkpoint: Checkpoint, options: ChatOptions) -> int:
    """Returns the most tokens of a sequence; warns of more than the model was trained for."""
    trained = registry.trained_context(checkpoint)
    asked = options.context_window_size or options.sliding_window_size
    wanted = asked or min(trained, DEFAULT_CONTEXT_TOKENS)
    if wanted > trained:
        _log.warning(
            "context_window_size is %d, more than the %d tokens the model was trained for: its "
            "answers to longer texts may make no sense",
            wanted,
            trained,
        )
    return wanted


def plan_memory(
    backend: Backend,
    program: Program,
    checkpoint: Checkpoint,
    context: int,
    config: MLCEngineConfig,
    host: Host,
) -> LoadPlan:
    """Chooses the largest KV cache that fits beside the weights.

    Raises DeviceMemoryError if not even the smallest one fits.
    """
    sizes = [context * windows for windows in host.kv_cache_windows]
    if config.kv_cache_tokens is not None:
        sizes = [max(config.kv_cache_tokens, context)]
    for num_tokens in sizes:
        num_blocks = -(-num_tokens // program.kv_cache.block_size)
        try:
            memory_bytes = backend.check_fits(program, checkpoint, num_blocks)
        except DeviceMemoryError:
            if num_tokens == sizes[-1]:
                raise
        else:
            break
    limits = StepLimits(
        max_tokens=backend.max_step_tokens,
        max_prefill_tokens_with_decode=backend.max_prefill_tokens_with_decode,
        prefill_equals_decode=backend.prefill_equals_decode,
    )
    return LoadPlan(backend, checkpoint, program, context, num_blocks, memory_bytes, limits)


async def upload(plan: LoadPlan, config: MLCEngineConfig) -> None:
    """Repacks the weights onto the device and allocates the KV cache there."""
    progress = ProgressReporter(config.init_progress_callback, Phase.UPLOAD)
    text = f"Loading weights onto {plan.backend.name}"
    await plan.backend.load(
        plan.program,
        plan.checkpoint,
        plan.num_blocks,
        plan.max_batch,
        lambda loaded, total: progress.update(text, loaded, total),
    )


async def warm_up(plan: LoadPlan, model_id: str, config: MLCEngineConfig) -> Runner:
    """Compiles the kernels for one sequence, so that the first answer begins without delay."""
    processor = config.logit_processor_registry.get(model_id)
    sampler = None if processor is None else HostSampler(processor, plan.program.vocab_size)
    runner = Runner(plan.backend, plan.program, plan.max_batch, sampler)
    progress = ProgressReporter(config.init_progress_callback, Phase.COMPILE)
    progress.update("Compiling kernels")
    try:
        await asyncio.gather(runner.prepare(1, 1), runner.prepare(plan.limits.max_tokens, 1))
    except BaseException:
        await to_its_end(runner.wait_for_compilation())  # because the caller closes the device
        raise
    progress.update("Ready", 1, 1)
    return runner


def new_scheduler(plan: LoadPlan, config: MLCEngineConfig) -> Scheduler:
    blocks = BlockManager(plan.num_blocks, plan.program.kv_cache.block_size)
    return Scheduler(blocks, plan.limits, plan.context_window_size, config.max_waiting_sequences)
