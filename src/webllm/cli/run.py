"""`webllm run`: one question, one answer."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

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
    request_fields,
    require_text,
)
from webllm.cli.session import Answer, answer_chat, answer_completion, load, statistics
from webllm.cli.terminal import note, write

if TYPE_CHECKING:
    from webllm.api.fields import GenerationFields

PromptArgument = Annotated[
    str, typer.Argument(metavar="PROMPT", help="The question; - reads it from standard input.")
]
RawOption = Annotated[
    bool, typer.Option("--raw", help="Continue PROMPT as it is, without the chat template.")
]


def run(
    model: ModelArgument,
    prompt: PromptArgument,
    raw: RawOption = False,
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
    """Ask a model one question."""
    import asyncio

    accept_any_bytes()
    text = sys.stdin.read() if prompt == "-" else prompt
    require_text(text, "standard input" if prompt == "-" else "PROMPT")
    require_text(system, "--system")
    fields = request_fields(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    if raw and system is not None:
        raise typer.BadParameter("--raw and --system exclude each other")
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": text})
    asyncio.run(
        _run(
            LoadOptions(model, device, threads, context, quantize),
            text if raw else messages,
            fields,
        )
    )


async def _run(
    options: LoadOptions, prompt: str | list[dict[str, str]], fields: GenerationFields
) -> None:
    """Answers messages, or continues a text."""
    answer = Answer()
    async with await load(options) as engine:
        try:
            if isinstance(prompt, str):
                await answer_completion(engine, prompt, fields, answer)
            else:
                await answer_chat(engine, prompt, fields, answer)
        finally:
            if answer.pieces:
                write("\n")
        note(statistics(answer, await engine.device_name()))
