"""The command `webllm`. Each subcommand imports its modules when it runs, so that help is instant.

Exit codes: 0, 1 after an error, 2 for wrong usage, 3 if `daemon status` finds none, 130 after
Ctrl-C.
"""

from __future__ import annotations

import sys
import traceback
from typing import Annotated, Any

try:
    import typer
    from typer.core import TyperCommand, TyperGroup
except ImportError:
    sys.exit("webllm: the command needs typer and rich; install webllm[cli]")

from webllm import __version__
from webllm.cli import (
    bench,
    bundle,
    chat,
    daemon,
    devices,
    extension,
    models,
    options,
    run,
    terminal,
    web,
)
from webllm.errors import WebLLMError


class Command(TyperCommand):
    """Shows required arguments as MODEL, not as typer's {MODEL}."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]


class GuardedGroup(TyperGroup):
    """Prints a WebLLMError as one line on stderr, and any other error as a traceback.

    All text goes through `webllm.cli.terminal`, including typer's own messages and tracebacks.
    """

    def main(self, *args: Any, **extra: Any) -> Any:
        with terminal.guarded_streams():
            try:
                return super().main(*args, **extra)
            except Exception:
                traceback.print_exc()
                sys.exit(1)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except WebLLMError as error:
            terminal.fail(options.in_options(str(error)))
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=GuardedGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        terminal.say(f"webllm {__version__}")
        raise typer.Exit


@app.callback()
def webllm(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Run language models on this machine's GPU or CPU."""


for command in (
    chat.chat,
    run.run,
    models.models,
    models.pull,
    models.rm,
    devices.devices,
    bench.bench,
    web.web,
    bundle.bundle,
    extension.extension,
):
    app.command(cls=Command)(command)
app.add_typer(daemon.app, name="daemon")
