"""`webllm web`: the chat page on localhost, with models from this disk."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from webllm.cli.options import SiteModelsOption, integer
from webllm.cli.site import CATALOGUE, site_folder
from webllm.cli.terminal import note, progress_bar, say
from webllm.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from webllm.cli.site_models import SiteModel
    from webllm.cli.site_server import SiteServer

DEFAULT_PORT = 8000


def web(
    model: SiteModelsOption = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            "-p",
            parser=integer(0, 65535),
            metavar="N",
            help="The port; 0 picks a free one. "
            f"[default: {DEFAULT_PORT}, or a free one if that is taken]",
            show_default=False,
        ),
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
) -> None:
    """Serve the chat page on localhost, until Ctrl-C."""
    import asyncio
    import webbrowser

    from webllm.cli.site_models import site_models
    from webllm.config import DEFAULT_MODEL_ID

    site_folder()  # fails before a download, not after it
    with progress_bar() as on_progress:
        models = asyncio.run(site_models(model or [DEFAULT_MODEL_ID], on_progress))
    with open_server(models, port) as server:
        listed = ", ".join(each.record.model_id for each in models)
        say(f"{listed} at {server.url}")
        note("Only this machine can reach it. Press Ctrl-C to stop.")
        if not no_open:
            webbrowser.open(server.url)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def open_server(models: list[SiteModel], port: int | None) -> SiteServer:
    """Returns a server of the site and the models, which stay where they are on the disk.

    Without a port, tries the default one and then any free one. Raises ConfigError if the port is
    not available.
    """
    from webllm.cli.site_models import catalogue
    from webllm.cli.site_server import SiteServer
    from webllm.cli.site_worker import SERVICE_WORKER, service_worker

    site = site_folder()
    models = [model.with_dates() for model in models]
    extra: dict[str, Path | bytes] = {
        f"/{path}": file for model in models for path, file in model.files.items()
    }
    extra[f"/{CATALOGUE}"] = catalogue(models)
    extra[f"/{SERVICE_WORKER}"] = service_worker(site)
    for attempt in [DEFAULT_PORT, 0] if port is None else [port]:
        try:
            return SiteServer(attempt, site, extra)
        except OSError as error:
            reason = error.strerror
    raise ConfigError(
        f"port {attempt} is not available ({reason}); choose another --port, or 0 for a free one"
    )
