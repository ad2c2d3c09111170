"""`LoadedModel`: a model that is ready to run, with everything that requests to it need."""

from __future__ import annotations

from dataclasses import dataclass

from webllm.api.stats import ModelStats
from webllm.config import ChatOptions
from webllm.engine.chat_format import ChatFormat
from webllm.engine.host_sampler import HostSampler
from webllm.engine.loop import GenerationLoop
from webllm.text.tokenizer import Tokenizer

DEFAULT_SINK_TOKENS = 4  # as in arXiv:2309.17453


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model on a device. `options`: those given to `reload`, over the model record's."""

    model_id: str
    options: ChatOptions
    context_window_size: int  # tokens
    tokenizer: Tokenizer
    chat_format: ChatFormat | None  # None: the file has no template, and no built-in one matches
    vocab_size: int  # columns of the logits; the tokenizer may have fewer tokens
    weights: str  # tells the model file from others; see `Checkpoint.fingerprint`
    memory_bytes: int  # of weights and KV cache
    loop: GenerationLoop

    @property
    def device_name(self) -> str:
        return self.loop.runner.backend.name

    @property
    def fingerprint(self) -> str:
        """Names what the bits of logits depend on: kernels, weights and, for attention, the window.

        A sequence that is replayed on a model of the same fingerprint goes on exactly.
        """
        return f"{self.loop.runner.backend.forms}:{self.weights}:{self.context_window_size}"

    @property
    def kv_cache_tokens(self) -> int:
        """The number of positions in the KV cache, for all sequences together."""
        blocks = self.loop.scheduler.blocks
        return blocks.num_blocks * blocks.block_size

    @property
    def host_sampler(self) -> HostSampler | None:
        """The registered logit processor, if there is one."""
        return self.loop.runner.host_sampler

    @property
    def attention_sink_size(self) -> int:
        size = self.options.attention_sink_size
        return DEFAULT_SINK_TOKENS if size is None else size

    def stats(self) -> ModelStats:
        """Returns the model's sequences and blocks now."""
        scheduler = self.loop.scheduler
        return ModelStats(
            model_id=self.model_id,
            device=self.device_name,
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            free_blocks=scheduler.blocks.num_free,
            blocks=scheduler.blocks.num_blocks,
            block_tokens=scheduler.blocks.block_size,
            memory_bytes=self.memory_bytes,
        )

    async def close(self) -> None:
        """Ends every sequence with finish_reason "abort" and frees the device."""
        try:
            await self.loop.close()
        finally:
            await self.loop.runner.close()
