"""`webllm chat`: a conversation."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from webllm.cli.options import (
    ContextOption,
    DeviceOption,
    LoadOptions,
    MaxTokensOption,
    ModelArgument,
    QuantizeOption,
    SeedOption,
    SystemOption,
    TemperatureOption,
    ThreadsOption,
    TopPOption,
    accept_any_bytes,
    in_options,
    request_fields,
    require_text,
)
from webllm.cli.session import Answer, answer_chat, load
from webllm.cli.terminal import note, write
from webllm.config import DEFAULT_MODEL_ID
from webllm.errors import RequestError

if TYPE_CHECKING:
    from webllm.api.fields import GenerationFields
    from webllm.engine.engine import MLCEngine

HELP = """\
/reset   start a new conversation
/stats   show the speed of the last answer
/help    show this text
/exit    quit, as Ctrl-D does
Ctrl-C stops an answer."""


def chat(
    model: ModelArgument = DEFAULT_MODEL_ID,
    system: SystemOption = None,
    max_tokens: MaxTokensOption = None,
    temperature: TemperatureOption = None,
    top_p: TopPOption = None,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    context: ContextOption = None,
    quantize: QuantizeOption = None,
) -> None:
    """Chat with a model."""
    require_text(system, "--system")
    fields = request_fields(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    with asyncio.Runner() as runner:
        engine = runner.run(load(LoadOptions(model, device, threads, context, quantize)))
        try:
            note(f"{model} on {runner.run(engine.device_name())}. /help lists the commands.")
            Conversation(runner, engine, system, fields).run()
        finally:
            runner.run(engine.unload())


class Conversation:
    """Reads lines and answers them until the end of the input."""

    def __init__(
        self,
        runner: asyncio.Runner,
        engine: MLCEngine,
        system: str | None,
        fields: GenerationFields,
    ) -> None:
        self._runner = runner
        self._engine = engine
        self._system = system
        self._fields = fields
        self._messages: list[dict[str, str]] = []
        self._reset()

    def run(self) -> None:
        with suppress(ImportError):
            import readline  # noqa: F401  (line editing in input())
        accept_any_bytes()
        while (line := _read_line()) not in (None, "/exit", "/quit"):
            text = (line or "").strip()
            if text.startswith("/"):
                self._command(text)
            elif text:
                try:
                    require_text(text, "that line")
                    self._answer(text)
                except RequestError as error:  # the context is full, or an option is out of range
                    note(f"{in_options(str(error))}\n/reset starts a new conversation.")
                except KeyboardInterrupt:  # pressed as the answer began or ended
                    write("\n")

    def _command(self, name: str) -> None:
        if name == "/reset":
            self._reset()
            note("Started a new conversation.")
        elif name == "/stats":
            note(self._runner.run(self._engine.runtime_stats_text()))
        elif name == "/help":
            note(HELP)
        else:
            note(f"There is no command {name}; /help lists them.")

    def _reset(self) -> None:
        self._messages = (
            [] if self._system is None else [{"role": "system", "content": self._system}]
        )

    def _answer(self, text: str) -> None:
        """Answers one line. Without an answer, the conversation stays as it was."""
        answer = Answer()
        conversation = [*self._messages, {"role": "user", "content": text}]
        self._runner.run(self._stream(conversation, answer))
        write("\n\n")
        if answer.finish_reason == "length":
            note(
                "The answer was cut off: it reached its length limit or filled the context window."
            )
        if answer.pieces:
            self._messages = [*conversation, {"role": "assistant", "content": answer.text}]

    async def _stream(self, messages: list[dict[str, str]], answer: Answer) -> None:
        with _ctrl_c_interrupts(self._engine):
            await answer_chat(self._engine, messages, self._fields, answer)


def _read_line() -> str | None:
    """Reads a line; "" after Ctrl-C, None at the end of the input."""
    try:
        return input("> " if sys.stdin.isatty() else "")
    except EOFError:
        return None
    except KeyboardInterrupt:
        write("\n")
        return ""


@contextmanager
def _ctrl_c_interrupts(engine: MLCEngine) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def interrupt(signum: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(engine.interrupt_generate)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
