"""`webllm daemon`: starts, shows and stops the engine that all programs of a user share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from webllm.cli.options import DeviceOption, ThreadsOption, decimal
from webllm.cli.terminal import note, print_table, say

if TYPE_CHECKING:
    from webllm.workers.daemon import DaemonStatus

_NOT_RUNNING = 3

app = typer.Typer(
    help="Start, show or stop the engine that your programs share.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

IdleOption = Annotated[
    float | None,
    typer.Option(
        "--idle-minutes",
        parser=decimal(0.01, 1_000_000),
        metavar="N",
        help="End after this time without a program that uses it. [default: 10]",
    ),
]


@app.command()
def start(
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    idle_minutes: IdleOption = None,
) -> None:
    """Start the shared engine, if it does not run yet."""
    import asyncio

    from webllm.config import MLCEngineConfig
    from webllm.workers.daemon_client import start_daemon

    config = MLCEngineConfig(device=device, num_threads=threads)
    idle_s = None if idle_minutes is None else idle_minutes * 60
    status = asyncio.run(start_daemon(config, idle_s))
    say(f"The shared engine runs: process {status.pid}, {status.socket}")


@app.command()
def status() -> None:
    """Show the shared engine, its models and what they do; exit code 3 if it does not run."""
    import asyncio

    from webllm.workers.daemon_client import daemon_status

    found = asyncio.run(daemon_status())
    if found is None:
        say("The shared engine does not run. `webllm daemon start` starts it; so does a program.")
        raise typer.Exit(_NOT_RUNNING)
    say(_described(found))
    if found.engine.models:
        rows = (
            (
                model.model_id,
                model.device,
                str(model.running),
                str(model.waiting),
                f"{model.free_blocks} of {model.blocks}",
            )
            for model in found.engine.models
        )
        print_table(("model", "device", "answering", "waiting", "free KV blocks"), rows)


@app.command()
def stop() -> None:
    """End the shared engine. Answers under way end early."""
    import asyncio

    from webllm.workers.daemon_client import stop_daemon

    pid = asyncio.run(stop_daemon())
    if pid is None:
        note("The shared engine does not run.")
    else:
        say(f"The shared engine, process {pid}, has ended.")


def _described(status: DaemonStatus) -> str:
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.started))
    settings = ", ".join(
        f"{name} {value}" for name, value in status.settings.items() if value is not None
    )
    loading = ", ".join(status.engine.loading)
    if status.engine.models:
        models = ", ".join(model.model_id for model in status.engine.models)
    else:
        models = f"loading {loading}" if loading else "none"
    return (
        f"process   {status.pid}, webllm {status.version}, since {started}\n"
        f"socket    {status.socket}\n"
        f"settings  {settings or 'those of the first program that uses it'}\n"
        f"ends      after {status.idle_s / 60:g} minutes without clients\n"
        f"clients   {status.clients}\n"
        f"models    {models}"
    )
