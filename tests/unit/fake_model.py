"""`MLCEngine` with number models: the fake device follows token t with t + 1."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from test_engine_loop import BLOCK_SIZE, make_loop

from webllm import ChatOptions, MLCEngine, MLCEngineConfig, ModelRecord
from webllm.api.chat_completion import ChatCompletion
from webllm.api.completion import Completion
from webllm.api.usage import CompletionUsage
from webllm.engine.host_sampler import HostSampler
from webllm.engine.loaded_model import LoadedModel
from webllm.host import NATIVE, Host
from webllm.testing import FakeBackend
from webllm.text.steps import Steps

EOS, VOCAB_SIZE, CONTEXT = 999, 1000, 256
NO_THOUGHT = 500


class NumberTokenizer:
    """Token 7 is written "7 ", and so on."""

    vocab_size, bos_id = VOCAB_SIZE, None
    eos_ids = special_ids = frozenset({EOS})
    add_space_prefix = False
    chars_per_token: int | None = None

    def encode(
        self, text: str, *, parse_special: bool = False, add_special: bool = True
    ) -> list[int]:
        return [int(number) for number in text.split()]

    def encode_steps(
        self, text: str, *, parse_special: bool = False, add_special: bool = True
    ) -> Steps[list[int]]:
        yield
        return self.encode(text)

    def guard(self, text: str) -> str:
        return text

    def guard_steps(self, text: str) -> Steps[str]:
        yield
        return self.guard(text)

    def encode_prompt(self, prompt: str) -> list[int]:
        return self.encode(prompt)

    def encode_prompt_steps(self, prompt: str) -> Steps[list[int]]:
        return self.encode_steps(prompt)

    def min_tokens(self, text: str) -> int:
        return 0

    def decode(self, token_ids: Iterable[int], *, skip_special: bool = True) -> str:
        return b"".join(map(self.token_bytes, token_ids)).decode()

    def token_bytes(self, token_id: int) -> bytes:
        return b"" if token_id == EOS else b"%d " % token_id

    def token_id(self, text: str) -> int | None:
        return int(text)


class AllMessages:
    """Renders the texts of all messages, and NO_THOUGHT if thinking is disabled."""

    stop_strings: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()

    prefix_ids: tuple[int, ...] = ()
    is_program = False

    def render(self, messages: Sequence[Mapping[str, object]], enable_thinking: bool = True) -> str:
        said = [str(message["content"]) for message in messages]
        return " ".join(said if enable_thinking else [*said, str(NO_THOUGHT)])


def make_loaded(
    model_id: str = "numbers",
    options: ChatOptions | None = None,
    backend: FakeBackend | None = None,
    windows: int = 1,
    max_waiting: int = 1024,
    host: Host = NATIVE,
) -> LoadedModel:
    """Makes a `LoadedModel`; its KV cache holds `windows` context windows."""
    options = options or ChatOptions()
    context = options.context_window_size or options.sliding_window_size or CONTEXT
    backend = backend or FakeBackend(vocab_size=VOCAB_SIZE)
    num_blocks = -(-windows * context // BLOCK_SIZE)
    loop = make_loop(backend, num_blocks, context=context, max_waiting=max_waiting, host=host)
    return LoadedModel(
        model_id, options, context, NumberTokenizer(), AllMessages(), VOCAB_SIZE, "none", 0, loop
    )


def make_engine(
    backend: FakeBackend | None = None,
    windows: int = 1,
    max_waiting: int = 1024,
    **options: Any,
) -> MLCEngine:
    loaded = make_loaded("numbers", ChatOptions(**options), backend, windows, max_waiting)
    return MLCEngine(models=[loaded])


class NumberModels:
    """Loads number models for every id, and keeps them in `loaded`; "broken" fails to load."""

    def __init__(self, tokenizer: NumberTokenizer | None = None) -> None:
        self.tokenizer = tokenizer or NumberTokenizer()
        self.loaded: list[LoadedModel] = []

    async def load(
        self, record: ModelRecord, options: ChatOptions, config: MLCEngineConfig, host: Host
    ) -> LoadedModel:
        await settle()
        if record.model_id == "broken":
            raise OSError("no such file")
        loaded = make_loaded(record.model_id, options, windows=4, host=host)
        loaded = replace(loaded, tokenizer=self.tokenizer)
        if processor := config.logit_processor_registry.get(record.model_id):
            loaded.loop.runner.host_sampler = HostSampler(processor, VOCAB_SIZE)
        self.loaded.append(loaded)
        return loaded

    def engine(self, config: MLCEngineConfig | None = None) -> MLCEngine:
        """Makes an engine that loads these models."""
        return MLCEngine(config, load_model=self.load)

    async def engine_with(
        self, *model_ids: str, config: MLCEngineConfig | None = None
    ) -> MLCEngine:
        """Makes an engine that has loaded these models."""
        engine = self.engine(config)
        await engine.reload(model_ids)
        return engine


@pytest.fixture
def number_models() -> NumberModels:
    return NumberModels()


def model_of(engine: MLCEngine, model_id: str | None = None) -> LoadedModel:
    """Returns a loaded model of an engine, to look at its scheduler and its device."""
    return engine._session(model_id).model


def backend_of(engine: MLCEngine) -> FakeBackend:
    return _backend(model_of(engine))


def is_closed(loaded: LoadedModel) -> bool:
    return _backend(loaded).is_closed


def _backend(loaded: LoadedModel) -> FakeBackend:
    backend = loaded.loop.runner.backend
    assert isinstance(backend, FakeBackend)
    return backend


def usage_of(reply: ChatCompletion | Completion) -> CompletionUsage:
    """Returns the usage of a whole answer, which has one."""
    assert reply.usage is not None
    return reply.usage


def num_used(engine: MLCEngine, model_id: str | None = None) -> int:
    """Returns the number of KV blocks in use."""
    blocks = model_of(engine, model_id).loop.scheduler.blocks
    return blocks.num_blocks - blocks.num_free


def asked(content: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], **fields}


def counted(first: int, last: int) -> str:
    """Returns the text of the tokens from `first` to `last`."""
    return "".join(f"{token_id} " for token_id in range(first, last + 1))


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)
