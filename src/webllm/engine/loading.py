"""From a model's name to a model that runs: fetch, open, record, load, compile."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from dataclasses import dataclass

from webllm.artifacts.auto import open_model
from webllm.artifacts.checkpoint import Checkpoint
from webllm.artifacts.progress import Phase, ProgressReporter
from webllm.backends.auto import open_backend
from webllm.backends.protocol import Backend
from webllm.config import ChatOptions, MLCEngineConfig, ModelRecord
from webllm.engine.background import ignore_result, in_background
from webllm.engine.block_manager import BlockManager
from webllm.engine.chat_format import ChatFormat, ConvFormat, JinjaFormat
from webllm.engine.generation import GenerationLoop
from webllm.engine.processing import HostSampler
from webllm.engine.runner import Runner
from webllm.engine.scheduler import Scheduler, StepLimits
from webllm.errors import ConfigError, DeviceMemoryError
from webllm.models import registry
from webllm.ops.program import BatchShape, Program
from webllm.text.conv_template import conv_template_from_json
from webllm.text.gguf_tokenizer import tokenizer_from_gguf
from webllm.text.model_template import template_from_gguf
from webllm.text.tokenizer import Tokenizer

_log = logging.getLogger(__name__)

DEFAULT_CONTEXT_TOKENS = 4096
DEFAULT_SINK_TOKENS = 4  # as in arXiv:2309.17453
# Context windows the KV cache holds, if they fit. A tab is to stay small, as it is with WebLLM.
_KV_WINDOWS = (1,) if sys.platform == "emscripten" else (4, 2, 1)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    model_id: str
    options: ChatOptions
    context_window_size: int  # tokens
    tokenizer: Tokenizer
    chat_format: ChatFormat | None  # None: the file has no template and none of ours suits
    loop: GenerationLoop

    @property
    def runner(self) -> Runner:
        return self.loop.runner

    @property
    def attention_sink_size(self) -> int:
        size = self.options.attention_sink_size
        return DEFAULT_SINK_TOKENS if size is None else size

    @property
    def device_name(self) -> str:
        return self.runner.backend.name

    async def close(self) -> None:
        try:
            await self.loop.close()
        finally:
            await self.runner.close()


async def load_model(
    record: ModelRecord, options: ChatOptions, config: MLCEngineConfig
) -> LoadedModel:
    """Raises what its parts raise: artifact, checkpoint, model and device errors."""
    started = time.perf_counter()
    # The device is opened, and its kernels are tested, while the model comes.
    opening = asyncio.create_task(open_backend(config.device, config.num_threads))
    try:
        store = config.app_config.cache_backend
        with await open_model(record.source, store, config.init_progress_callback) as checkpoint:
            loaded = await _load_from(checkpoint, opening, record.model_id, options, config)
    except BaseException:
        if opening.done():
            _close_opened(opening)
        else:
            opening.add_done_callback(_close_opened)
        raise
    kv_tokens = loaded.loop.scheduler.blocks.num_blocks * loaded.loop.scheduler.blocks.block_size
    _log.info(
        "%s on %s: context of %d tokens, KV cache of %d, after %.1f s",
        record.model_id,
        loaded.device_name,
        loaded.context_window_size,
        kv_tokens,
        time.perf_counter() - started,
    )
    return loaded


def _close_opened(opening: asyncio.Task[Backend]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


async def _load_from(
    checkpoint: Checkpoint,
    opening: asyncio.Task[Backend],
    model_id: str,
    options: ChatOptions,
    config: MLCEngineConfig,
) -> LoadedModel:
    """Whoever began `opening` closes what it opened if this raises."""
    # The tokenizer is Python and the repacking is not: they run side by side.
    text = asyncio.create_task(in_background(_read_text, checkpoint, options))
    try:
        context = context_window(checkpoint, options)
        program = registry.record(checkpoint, context)
        await asyncio.wait([opening])  # which goes on if this is cancelled
        processor = config.logit_processor_registry.get(model_id)
        sampler = None if processor is None else HostSampler(processor, program.vocab_size)
        loop = await _start(opening.result(), program, checkpoint, context, config, sampler)
    except BaseException:
        text.add_done_callback(ignore_result)
        raise
    tokenizer, chat_format = await text
    return LoadedModel(model_id, options, context, tokenizer, chat_format, loop)


def context_window(checkpoint: Checkpoint, options: ChatOptions) -> int:
    """Tokens a sequence may have; raises ConfigError beyond what was trained."""
    trained = registry.trained_context(checkpoint)
    asked = options.context_window_size or options.sliding_window_size
    wanted = asked or min(trained, DEFAULT_CONTEXT_TOKENS)
    if wanted > trained:
        raise ConfigError(
            f"context_window_size is {wanted}, more than the {trained} the model was trained for"
        )
    return wanted


def _read_text(checkpoint: Checkpoint, options: ChatOptions) -> tuple[Tokenizer, ChatFormat | None]:
    tokenizer = tokenizer_from_gguf(checkpoint.metadata)
    if options.conv_template is not None:
        return tokenizer, ConvFormat(conv_template_from_json(options.conv_template))
    template = template_from_gguf(checkpoint.metadata, tokenizer)
    return tokenizer, JinjaFormat(template) if template else None


async def _start(
    backend: Backend,
    program: Program,
    checkpoint: Checkpoint,
    context: int,
    config: MLCEngineConfig,
    host_sampler: HostSampler | None,
) -> GenerationLoop:
    scheduler = _scheduler(backend, program, checkpoint, context, config)
    limits, num_blocks = _largest_step(scheduler), scheduler.blocks.num_blocks
    uploading = ProgressReporter(config.init_progress_callback, Phase.UPLOAD)
    text = f"Loading weights onto {backend.name}"
    await backend.load(
        program,
        checkpoint,
        num_blocks,
        limits,
        lambda loaded, total: uploading.update(text, loaded, total),
    )
    runner = Runner(backend, program, limits, host_sampler)
    await _prepare(runner, config)
    return GenerationLoop(scheduler, runner)


def _scheduler(
    backend: Backend,
    program: Program,
    checkpoint: Checkpoint,
    context: int,
    config: MLCEngineConfig,
) -> Scheduler:
    """Raises DeviceMemoryError if weights and KV cache do not fit."""
    block_size = program.kv_cache.block_size
    sizes = [context * windows for windows in _KV_WINDOWS]
    if config.kv_cache_tokens is not None:
        sizes = [max(config.kv_cache_tokens, context)]
    for num_tokens in sizes:
        num_blocks = -(-num_tokens // block_size)
        try:
            backend.check_fits(program, checkpoint, num_blocks)
        except DeviceMemoryError:
            if num_tokens == sizes[-1]:
                raise
        else:
            break
    limits = StepLimits(
        max_tokens=backend.step_tokens, max_prompt_tokens=backend.step_tokens_beside_decode
    )
    blocks = BlockManager(num_blocks, block_size)
    return Scheduler(blocks, limits, context, config.max_waiting_sequences)


def _largest_step(scheduler: Scheduler) -> BatchShape:
    limits = scheduler.limits
    return BatchShape(
        max_tokens=limits.max_tokens,
        max_seqs=limits.max_sequences,
        max_outputs=limits.max_sequences,
        max_blocks=scheduler.blocks.blocks_for(scheduler.max_positions),
    )


async def _prepare(runner: Runner, config: MLCEngineConfig) -> None:
    """Compiles what a single sequence needs, so that the first answer begins without delay."""
    compiling = ProgressReporter(config.init_progress_callback, Phase.COMPILE)
    compiling.update("Compiling kernels")
    try:
        await asyncio.gather(runner.prepare(1, 1), runner.prepare(runner.limits.max_tokens, 1))
    except BaseException:
        await runner.settle()  # the device is closed next
        raise
    compiling.update("Ready", 1, 1)
