"""From a model's name to a model that runs: fetch, open, record, load, compile."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from webllm.artifacts.checkpoint import Checkpoint
from webllm.artifacts.gguf import open_gguf
from webllm.artifacts.progress import Phase, ProgressCallback, ProgressReporter
from webllm.artifacts.resolve import ensure_artifact
from webllm.artifacts.store import DirectoryStore
from webllm.config import ChatOptions, MLCEngineConfig, ModelRecord
from webllm.engine.block_manager import BlockManager
from webllm.engine.chat_format import ChatFormat, ConvFormat, JinjaFormat
from webllm.engine.devices import open_backend
from webllm.engine.generation import GenerationLoop
from webllm.engine.runner import Runner
from webllm.engine.scheduler import Scheduler
from webllm.errors import ConfigError
from webllm.models import registry
from webllm.ops.backend import Backend
from webllm.ops.program import BatchShape, Program
from webllm.text.conv_template import conv_template_from_json
from webllm.text.gguf_tokenizer import tokenizer_from_gguf
from webllm.text.model_template import template_from_gguf
from webllm.text.tokenizer import Tokenizer

DEFAULT_CONTEXT_TOKENS = 4096


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
    def device_name(self) -> str:
        return self.runner.backend.name

    async def close(self) -> None:
        try:
            await self.loop.close()
        finally:
            self.runner.close()


async def load_model(
    record: ModelRecord, options: ChatOptions, config: MLCEngineConfig
) -> LoadedModel:
    """Raises what its parts raise: artifact, checkpoint, model and device errors."""
    path = await ensure_artifact(record.source, DirectoryStore(), config.init_progress_callback)
    with open_gguf(path) as checkpoint:
        # The tokenizer is Python and the repacking is not: they run side by side.
        text = asyncio.create_task(asyncio.to_thread(_read_text, checkpoint, options))
        try:
            context = context_window(checkpoint, options)
            loop = await _start(checkpoint, context, config)
        except BaseException:
            text.add_done_callback(_heed)
            raise
        try:
            tokenizer, chat_format = await text
        except BaseException:
            loop.runner.close()
            raise
    return LoadedModel(record.model_id, options, context, tokenizer, chat_format, loop)


def _heed(task: asyncio.Task[object]) -> None:
    """Takes note of how a task ended whose result no longer counts."""
    if not task.cancelled():
        task.exception()


def context_window(checkpoint: Checkpoint, options: ChatOptions) -> int:
    """Positions of the KV cache, in tokens; raises ConfigError beyond what was trained."""
    trained = registry.trained_context(checkpoint)
    wanted = options.context_window_size or min(trained, DEFAULT_CONTEXT_TOKENS)
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


async def _start(checkpoint: Checkpoint, context: int, config: MLCEngineConfig) -> GenerationLoop:
    program = registry.record(checkpoint, context)
    backend = open_backend(config.device, config.num_threads)
    try:
        return await _load(backend, program, checkpoint, context, config.init_progress_callback)
    except BaseException:
        backend.close()
        raise


async def _load(
    backend: Backend,
    program: Program,
    checkpoint: Checkpoint,
    context: int,
    callback: ProgressCallback | None,
) -> GenerationLoop:
    block_size = program.kv_cache.block_size
    blocks = BlockManager(-(-context // block_size), block_size)
    backend.check_fits(program, checkpoint, blocks.num_blocks)
    scheduler = Scheduler(blocks)
    limits = BatchShape(
        max_tokens=scheduler.max_chunk_tokens,
        max_seqs=scheduler.max_sequences,
        max_outputs=scheduler.max_sequences,
        max_blocks=blocks.num_blocks,
    )
    loading = ProgressReporter(callback, Phase.LOAD)
    text = f"Loading weights onto {backend.name}"
    await backend.load(
        program,
        checkpoint,
        blocks.num_blocks,
        limits,
        lambda loaded, total: loading.update(text, loaded, total),
    )
    runner = Runner(backend, program, limits)
    compiling = ProgressReporter(callback, Phase.COMPILE)
    compiling.update("Compiling kernels")
    runner.compile(1, 1)
    runner.compile(scheduler.max_chunk_tokens, 1)
    compiling.update("Ready", 1, 1)
    return GenerationLoop(scheduler, runner)
