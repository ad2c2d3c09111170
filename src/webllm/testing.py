"""Fakes for tests of programs that use webllm: an engine without a model, and its device."""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from webllm.artifacts.checkpoint import Checkpoint, OnBytes
from webllm.config import ChatOptions, MLCEngineConfig, ModelRecord
from webllm.engine import loading
from webllm.engine.engine import MLCEngine
from webllm.engine.loaded_model import LoadedModel
from webllm.engine.loop import GenerationLoop
from webllm.errors import DeviceLostError
from webllm.host import Host
from webllm.ops.program import BatchShape, KVCacheShape, Program
from webllm.ops.sampled import Logits, Sampled, TokenLogprobs
from webllm.ops.step import FROM_SAMPLED, Step, StepLayout, StepSequence
from webllm.text.steps import Steps

__all__ = ["FakeBackend", "FakeExecutable", "fake_engine"]

# A prompt's tokens are its bytes. Those of an answer are numbered from 256 on, to tell them apart.
_FIRST_ANSWER_TOKEN = 256
_EOS = 512
_NUM_TOKENS = 513
_MESSAGE = "\0"  # begins each message


def fake_engine(answer: Callable[[str], str], config: MLCEngineConfig | None = None) -> MLCEngine:
    """Returns an engine that answers without a model. All else is as in `MLCEngine`.

    answer: is called once for each choice, with the text of the last message or the prompt of a
    completion, and returns the reply; an error that it raises fails the request. Choices with the
    same prompt and the same `seed` have one answer. `reload` loads nothing, so any model id of the
    catalogue, and any source such as "m.gguf", will do. A token is one byte.
    """

    async def load_model(
        record: ModelRecord, options: ChatOptions, config: MLCEngineConfig, host: Host
    ) -> LoadedModel:
        backend = _AnsweringBackend(answer)
        program = Program((), KVCacheShape(1, 1, 32), _NUM_TOKENS)
        context = options.context_window_size or options.sliding_window_size
        context = context or loading.DEFAULT_CONTEXT_TOKENS
        checkpoint: Any = None  # there are no weights
        plan = loading.plan_memory(backend, program, checkpoint, context, config, host)
        runner = await loading.warm_up(plan, record.model_id, config)
        return LoadedModel(
            model_id=record.model_id,
            options=options,
            context_window_size=context,
            tokenizer=_ByteTokenizer(),
            chat_format=_LastMessage(),
            vocab_size=_NUM_TOKENS,
            weights="none",
            memory_bytes=plan.memory_bytes,
            loop=GenerationLoop(loading.new_scheduler(plan, config), runner, host),
        )

    return MLCEngine(config, load_model=load_model)


class FakeBackend:
    """A `Backend` without a device, which asserts that each step keeps the rules of a step.

    Its KV cache stores token ids. It samples the last token plus one; with `hashes`, a hash of the
    whole context in the KV cache, so that one wrong block changes every token after it.
    """

    name = "fake"
    forms = "fake-1"
    max_step_tokens = 32
    max_prefill_tokens_with_decode = 8
    min_prefill_tokens = 1
    prefill_equals_decode = True

    def __init__(
        self, vocab_size: int = 1000, max_steps_in_flight: int = 2, *, hashes: bool = False
    ) -> None:
        self.vocab_size = vocab_size
        self.max_steps_in_flight = max_steps_in_flight
        self.hashes = hashes
        self.sampled: list[int] = []  # of the newest step, as a device would keep them
        self.kv_cache: dict[tuple[int, int], int] = {}  # (block, offset) -> token
        self.steps: list[Step] = []
        self.error: Exception | None = None
        self.is_closed = False
        self._num_lost = 0  # steps that were submitted before the device was lost

    def check_fits(self, program: Program, checkpoint: Checkpoint, num_blocks: int) -> int:
        return 0

    async def load(
        self,
        program: Program,
        checkpoint: Checkpoint,
        num_blocks: int,
        limits: BatchShape,
        on_bytes: OnBytes,
    ) -> None: ...

    def compile(self, program: Program, shape: BatchShape) -> FakeExecutable:
        return FakeExecutable(self, shape, program.kv_cache.block_size)

    def run(self, step: Step, block_size: int) -> list[int]:
        self.steps.append(step)
        outputs: list[int] = []
        for sequence in step.sequences:
            token_ids = [self._resolved(token_id) for token_id in sequence.token_ids]
            first = sequence.context_len - len(token_ids)
            for position, token_id in enumerate(token_ids, first):
                slot = (sequence.block_table[position // block_size], position % block_size)
                self.write(slot, token_id, position)
            for output in sequence.outputs:
                length = first + output + 1
                context = self.context(sequence.block_table, length, block_size)
                outputs.append(self.next_token(context, sequence))
        self.sampled[: len(outputs)] = outputs
        return outputs

    def write(self, slot: tuple[int, int], token_id: int, position: int) -> None:
        """Writes a token to the KV cache, at a block and an offset in it."""
        self.kv_cache[slot] = token_id

    def next_token(self, context: list[int], sequence: StepSequence) -> int:
        """Returns the token after `context`, which is all of a sequence."""
        return (hash(tuple(context)) if self.hashes else context[-1] + 1) % self.vocab_size

    def context(self, blocks: Sequence[int], num_positions: int, block_size: int) -> list[int]:
        """Returns the tokens of a sequence as its blocks hold them."""
        return [
            self.kv_cache[blocks[p // block_size], p % block_size] for p in range(num_positions)
        ]

    def recover(self) -> None:
        """Brings a failed device back: later steps work, those already submitted are lost."""
        self.error = None
        self._num_lost = len(self.steps)

    def check(self, step: Step) -> None:
        """Raises the error of a step, if it failed."""
        if self.error:
            raise self.error
        if any(lost is step for lost in self.steps[: self._num_lost]):
            raise DeviceLostError("this step was in flight when the device went away")

    def close(self) -> None:
        self.kv_cache.clear()
        self.is_closed = True

    def _resolved(self, token_id: int) -> int:
        """Returns a token id of a step; the device knows those that refer to the last sampling."""
        return self.sampled[token_id - FROM_SAMPLED] if token_id & FROM_SAMPLED else token_id


class FakeExecutable:
    """An `Executable` of a `FakeBackend`."""

    def __init__(self, backend: FakeBackend, shape: BatchShape, block_size: int) -> None:
        self.backend, self.shape, self.block_size = backend, shape, block_size
        self.results: deque[list[int]] = deque()  # tokens of the steps in flight
        self.steps: deque[Step] = deque()  # in flight
        self.read: list[int] = []  # tokens of the last step that was read

    async def ready(self, is_plain: bool = True) -> None: ...

    def submit(self, step: Step) -> None:
        assert step.num_tokens <= self.shape.max_tokens
        assert len(step.sequences) <= self.shape.max_seqs
        assert step.num_outputs <= self.shape.max_outputs
        # A token may refer to an output of an earlier, larger step.
        limits = replace(self.shape, max_outputs=1 << 16)
        layout = StepLayout(limits, self.block_size, 1 << 27, self.backend.vocab_size)
        layout.pack(step)  # checks the step
        self.steps.append(step)
        self.results.append(self.backend.run(step, self.block_size))
        assert len(self.results) <= self.backend.max_steps_in_flight

    async def sampled(self) -> Sampled:
        self.read, step = self.results.popleft(), self.steps.popleft()
        await asyncio.sleep(0)
        self.backend.check(step)
        return Sampled(self.read, _logprobs(step, self.read))

    async def logits(self) -> memoryview:
        """Returns logits of 0, and of 1 for the token that was sampled."""
        size = self.backend.vocab_size
        logits = array("f", bytes(4 * size * len(self.read)))
        for output, token_id in enumerate(self.read):
            logits[output * size + token_id] = 1.0
        return memoryview(logits)

    def resample(self, step: Step, logits: Sequence[Logits]) -> None:
        """Samples the token of the largest logit."""
        rows = [memoryview(row).cast("B").cast("f").tolist() for row in logits]
        self.backend.sampled = [row.index(max(row)) for row in rows]
        self.steps.append(step)
        self.results.append(self.backend.sampled)


def _logprobs(step: Step, token_ids: list[int]) -> list[TokenLogprobs | None]:
    """Returns -0.5 for the sampled token t, and as alternatives -0.5 - i for t + i."""
    wanted = [s.sampling.num_logprobs for s in step.sequences for _ in s.outputs]
    return [
        None if num is None else TokenLogprobs(-0.5, tuple((t + i, -0.5 - i) for i in range(num)))
        for num, t in zip(wanted, token_ids, strict=True)
    ]


class _AnsweringBackend(FakeBackend):
    """Samples the bytes of an answer, then the end."""

    def __init__(self, answer: Callable[[str], str]) -> None:
        super().__init__(_NUM_TOKENS)
        self._answer = answer
        self._answers: dict[tuple[bytes, int], bytes] = {}  # by prompt and seed

    def next_token(self, context: list[int], sequence: StepSequence) -> int:
        num_prompt = len(context)
        while num_prompt and context[num_prompt - 1] >= _FIRST_ANSWER_TOKEN:
            num_prompt -= 1
        prompt = bytes(token_id % 256 for token_id in context[:num_prompt])
        num_answered = len(context) - num_prompt
        key = prompt, sequence.sampling.seed
        if key not in self._answers:
            text = prompt.decode(errors="replace").rpartition(_MESSAGE)[2]
            reply = self._answer(text)
            if not isinstance(reply, str):
                raise TypeError(f"the answer is {reply!r}; return a str")
            self._answers[key] = reply.encode()
        answer = self._answers[key]
        return _FIRST_ANSWER_TOKEN + answer[num_answered] if num_answered < len(answer) else _EOS


class _LastMessage:
    """A `ChatFormat` that writes the texts of all messages, each after a mark."""

    stop_strings: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    prefix_ids: tuple[int, ...] = ()
    is_program = False

    def render(self, messages: Sequence[Mapping[str, object]], enable_thinking: bool = True) -> str:
        return "".join(f"{_MESSAGE}{message['content']}" for message in messages)


class _ByteTokenizer:
    """A `Tokenizer` whose tokens are bytes."""

    vocab_size = _NUM_TOKENS
    bos_id = None
    eos_ids = special_ids = frozenset({_EOS})
    add_space_prefix = False
    chars_per_token = 1

    def encode(
        self, text: str, *, parse_special: bool = False, add_special: bool = True
    ) -> list[int]:
        return list(text.encode(errors="replace"))

    def guard(self, text: str) -> str:
        return text.replace(_MESSAGE, "")

    def encode_prompt(self, prompt: str) -> list[int]:
        return self.encode(prompt)

    def encode_steps(
        self, text: str, *, parse_special: bool = False, add_special: bool = True
    ) -> Steps[list[int]]:
        yield
        return self.encode(text)

    def guard_steps(self, text: str) -> Steps[str]:
        yield
        return self.guard(text)

    def encode_prompt_steps(self, prompt: str) -> Steps[list[int]]:
        return self.encode_steps(prompt)

    def min_tokens(self, text: str) -> int:
        return len(self.guard(text))

    def decode(self, token_ids: Iterable[int], *, skip_special: bool = True) -> str:
        return b"".join(map(self.token_bytes, token_ids)).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id % 256]) if 0 <= token_id < _EOS else b""

    def token_id(self, text: str) -> int | None:
        token_ids = self.encode(text)
        return token_ids[0] if len(token_ids) == 1 else None
