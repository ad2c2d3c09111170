"""Random readers, cuts, losses and kills: every answer equals the undisturbed one."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from webllm import ChatOptions, MLCEngine
from webllm.api.completion import CompletionChoice
from webllm.api.resumable import ResumeResult
from webllm.artifacts.journal_files import JournalFiles
from webllm.engine.journal import Begin, Journal, _records
from webllm.errors import DeviceLostError, ModelNotLoadedError
from webllm.ops.step import StepSequence
from webllm.testing import FakeBackend, _AnsweringBackend, fake_engine

EOS = 512
# Tokens are bytes: characters of one to four of them, whole and in parts.
TOKENS = "ab 鯨é🐋".encode()


def next_token(self: FakeBackend, context: list[int], sequence: StepSequence) -> int:
    """Draws by seed and context, so that one wrong token changes all that follow."""
    drawn = hash((sequence.sampling.seed, *context)) % 4001
    return EOS if drawn < 60 else 256 + TOKENS[drawn % len(TOKENS)]


@pytest.fixture(autouse=True)
def drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_AnsweringBackend, "next_token", next_token)


async def new_engine(folder: Path, options: ChatOptions) -> MLCEngine:
    engine = fake_engine(lambda text: text)
    engine._journal = Journal(JournalFiles(folder))
    await engine.reload("m.gguf", options)
    return engine


class Reader:
    """What one client has of an answer, and its stream while it has one."""

    def __init__(self, num_choices: int) -> None:
        self.stream: AsyncGenerator[Any, None] | None = None
        self.texts = [""] * num_choices
        self.token_ids: list[list[int]] = [[] for _ in range(num_choices)]
        self.logprobs: list[list[str]] = [[] for _ in range(num_choices)]
        self.reasons: list[str | None] = [None] * num_choices
        self.usage: tuple[int, int] | None = None

    def take(self, chunk: Any) -> None:
        if chunk.usage is not None:
            self.usage = chunk.usage.prompt_tokens, chunk.usage.completion_tokens
        for choice in chunk.choices:
            i = choice.index
            part: Any = choice
            part = getattr(part, "delta", None) or getattr(part, "message", None) or part
            text = part.text if isinstance(part, CompletionChoice) else part.content
            if self.reasons[i] is None:  # it has ended for this reader, before it was lost
                self.texts[i] += text or ""
                self.token_ids[i] += choice.token_ids or []
                if choice.logprobs is not None:
                    self.logprobs[i] += [each.token for each in choice.logprobs.content or ()]
                self.reasons[i] = choice.finish_reason

    async def read(self, num_chunks: int | None = None) -> None:
        """Reads some chunks, or all. A stream that is lost is to be asked for again."""
        while self.stream is not None and num_chunks != 0:
            num_chunks = None if num_chunks is None else num_chunks - 1
            try:
                self.take(await anext(self.stream))
            except (StopAsyncIteration, DeviceLostError):
                self.stream = None
        if self.stream is None and not self.is_complete:
            self.reasons = [None if reason == "abort" else reason for reason in self.reasons]
            self.usage = None

    async def leave(self) -> None:
        stream, self.stream = self.stream, None
        if stream is not None:
            await stream.aclose()

    def copy(self) -> Reader:
        other = Reader(len(self.texts))
        fields = {name: value for name, value in vars(self).items() if name != "stream"}
        for name, value in fields.items():
            lists = [v[:] if isinstance(v, list) else v for v in value or ()]
            setattr(other, name, lists if isinstance(value, list) else value)
        return other

    @property
    def is_complete(self) -> bool:
        return not {None, "abort"} & {*self.reasons} and self.usage is not None

    def state(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "stream"}


class Run:
    """One request, whose clients and engines are disturbed at random."""

    def __init__(self, rng: random.Random, folder: Path) -> None:
        self.rng, self._folder = rng, folder
        self._num_kills = 0
        self.fields = self._random_request()
        small = ChatOptions(context_window_size=96, context_overflow="shift")
        self._options = rng.choice([ChatOptions(), small])
        self._is_chat = "messages" in self.fields
        self._lost: list[MLCEngine] = []
        self._wholes: list[asyncio.Task[Any]] = []

    def _random_request(self) -> dict[str, Any]:
        rng = self.rng
        fields: dict[str, Any] = {"n": rng.choice([1, 1, 2, 3])}
        if rng.random() < 0.5:
            fields["seed"] = rng.getrandbits(32)
        text = "Sing. " * rng.randrange(1, 9)
        if rng.random() < 0.6:
            fields["messages"] = [{"role": "user", "content": text}]
        else:
            fields |= {"prompt": text, "echo": rng.choice([True, False])}
        if rng.random() < 0.5:
            fields["max_tokens"] = rng.choice([1, 15, 16, 17, 48])
        if rng.random() < 0.5:
            fields |= {"logprobs": True, "top_logprobs": 1}
        if rng.random() < 0.6:
            fields["stop"] = rng.choice([["a b"], ["鯨鯨", "ba"], ["aé", "bbbb"]])
        return fields

    async def begin(self) -> None:
        self._path = self._folder / "journal"
        self.engine = await new_engine(self._path, self._options)
        first, undisturbed = Reader(self.fields["n"]), Reader(self.fields["n"])
        self.readers = [first]
        await self.ask(first)
        while (begun := await self.engine._own_journal().find("s")) is None:
            await first.read(1)
        await self.ask(undisturbed, "undisturbed", seed=begun.begin.seed)
        await undisturbed.read()
        self.expected = undisturbed.state()

    async def ask(self, reader: Reader, session_id: str = "s", **more: Any) -> None:
        """Asks for what a reader does not have."""
        counts = [len(token_ids) for token_ids in reader.token_ids]
        resumable: dict[str, Any] = {"session_id": session_id}
        if any(counts):
            resumable["from_token"] = counts
        for choice, reason in enumerate(reader.reasons):
            if not counts[choice] and reason is None:
                reader.texts[choice] = ""  # it begins again, with the prompt's echo
        extra = {"resumable": resumable, "return_token_ids": True}
        more |= {"stream": True, "stream_options": {"include_usage": True}, "extra_body": extra}
        with suppress(DeviceLostError):
            reader.stream = await self._method()({**self.fields, **more})

    def _method(self) -> Any:
        return self.engine.chat_completion if self._is_chat else self.engine.completion

    async def ask_for_all(self) -> None:
        """Begins to wait for the whole answer."""
        extra = {"resumable": {"session_id": "s"}, "return_token_ids": True}
        request = {**self.fields, "extra_body": extra}
        self._wholes.append(asyncio.create_task(self._method()(request)))
        await self.wait()

    async def _check_wholes(self) -> None:
        """Compares the whole answers, except for those that were lost."""
        for whole in await asyncio.gather(*self._wholes, return_exceptions=True):
            if isinstance(whole, DeviceLostError | ModelNotLoadedError):
                continue
            assert not isinstance(whole, BaseException), whole
            if "abort" not in (choice.finish_reason for choice in whole.choices):
                reader = Reader(self.fields["n"])
                reader.take(whole)
                assert reader.state() == self.expected

    async def disturb(self) -> None:
        steps: list[Callable[[], Any]] = [self.read] * 6 + [self.attach] * 3 + [self.ask_for_all]
        steps += [self.leave, self.cancel, self.wait, self.replace_model, self.lose_device]
        await self.rng.choice([*steps, self.kill])()

    async def read(self) -> None:
        reader = self.rng.choice(self.readers)
        if reader.stream is None and not reader.is_complete:
            await self.ask(reader)
        await reader.read(self.rng.choice([1, 1, 2, 5, 20]))

    async def attach(self) -> None:
        reader = self.rng.choice([Reader(self.fields["n"]), self.rng.choice(self.readers).copy()])
        await self.ask(reader)
        self.readers.append(reader)

    async def leave(self) -> None:
        await self.rng.choice(self.readers).leave()

    async def cancel(self) -> None:
        """Cancels a client at some moment of a request or of a read."""
        reader = Reader(self.fields["n"])
        task = asyncio.create_task(self.ask(reader))
        for _ in range(self.rng.randrange(12)):
            await asyncio.sleep(self.rng.choice([0, 0.0001]))
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
            task = asyncio.create_task(reader.read())
            for _ in range(self.rng.randrange(5)):
                await asyncio.sleep(0)
            task.cancel()
            await task

    async def wait(self) -> None:
        for _ in range(self.rng.choice([1, 9, 99])):
            await asyncio.sleep(0)

    async def replace_model(self) -> None:
        await self.engine.reload("m.gguf", self._options)

    async def lose_device(self) -> None:
        backend = self.engine._session(None).model.loop.runner.backend
        assert isinstance(backend, FakeBackend)
        backend.error = DeviceLostError("the device went away")
        await self.wait()
        backend.recover()

    async def kill(self) -> None:
        """Goes on with a new engine, and with a journal that may have lost its tail."""
        self._num_kills += 1
        path = self._folder / f"journal{self._num_kills}"
        if self._path.exists():
            shutil.copytree(self._path, path)
            for file in path.iterdir():
                data = file.read_bytes()
                records = list(_records(data))
                if records and self.rng.random() < 0.7:
                    assert isinstance(records[0][0], Begin)
                    file.write_bytes(data[: self.rng.randint(records[0][1], len(data))])
        self._lost.append(self.engine)
        self._path = path
        self.engine = await new_engine(path, self._options)
        for reader in self.readers:
            reader.stream = None

    async def end(self) -> None:
        for reader in self.readers:
            while not reader.is_complete:
                if reader.stream is None:
                    await self.ask(reader)
                await reader.read()
            assert reader.state() == self.expected
            await reader.leave()
        await self._check_wholes()
        await self._check_nothing_is_left()
        whole = await self.engine.resume_chat_completion("s", continue_generation=True)
        found = await self.engine.resume_chat_completion("s")
        for result in (whole, found):
            assert isinstance(result, ResumeResult)
            texts = self.expected["texts"]
            if self.fields.get("echo"):
                texts = [text.removeprefix(self.fields["prompt"]) for text in texts]
            assert result.recovered_texts == texts
        for engine in [*self._lost, self.engine]:
            await engine.unload()

    async def _check_nothing_is_left(self) -> None:
        scheduler = self.engine._session(None).model.loop.scheduler
        assert not scheduler.has_work
        assert scheduler.blocks.num_free == scheduler.blocks.num_blocks
        assert not self.engine._generations._by_id


@pytest.mark.parametrize("seed", range(40))
async def test_a_disturbed_answer_equals_the_undisturbed_one(seed: int, tmp_path: Path) -> None:
    run = Run(random.Random(seed), tmp_path)
    await run.begin()
    for _ in range(run.rng.randrange(25)):
        await run.disturb()
    await run.end()
