"""`webllm extension`: a Chrome extension with the chat page in its popup."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from webllm.cli.bundle import check_folder
from webllm.cli.extension_manifest import (
    Access,
    Kind,
    extension_id,
    extension_manifest,
    extension_version,
    model_host,
    site_pattern,
)
from webllm.cli.options import SiteModelsOption
from webllm.cli.site import CATALOGUE, MANIFEST, site_folder
from webllm.cli.terminal import note, progress_bar, say, size
from webllm.errors import ConfigError

if TYPE_CHECKING:
    from webllm.cli.extension_package import Contents
    from webllm.cli.site_models import SiteModel

_MAX_STORE_BYTES = 2 << 30


def extension(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write to.")],
    kind: Annotated[
        Kind,
        typer.Option(
            "--kind",
            "-k",
            metavar="KIND",
            help="popup: the engine runs while the popup is open. background: it stays, and serves "
            "all of the extension.",
        ),
    ],
    model: SiteModelsOption = None,
    include_models: Annotated[
        bool,
        typer.Option(
            "--include-models",
            help="Put the models into the package. Otherwise the extension fetches them, from hf: "
            "or https: sources only.",
        ),
    ] = False,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="TEXT", help="The extension's name. [default: WebLLM Chat]"),
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(
            "--version",
            metavar="NUMBERS",
            help="The extension's version, 1 to 4 numbers such as 1.0.2. Chrome's store takes an "
            "update only with a higher one. [default: webllm's version]",
        ),
    ] = None,
    model_hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--model-host",
            metavar="HOST",
            help="A host to which the models' own hosts redirect; may be repeated.",
        ),
    ] = None,
    allow_site: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-site",
            metavar="PATTERN",
            help="Web pages that may use the engine once the user agrees, as "
            "https://example.com/*; may be repeated.",
        ),
    ] = None,
    allow_extension: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-extension",
            metavar="ID",
            help="An extension that may do the same; may be repeated.",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Write into a folder that is not empty, and over OUT.zip."),
    ] = False,
) -> None:
    """Write a Chrome extension with the chat page: a folder, and OUT.zip for Chrome's store."""
    from webllm import __version__
    from webllm.cli.extension_models import catalogue, remarks
    from webllm.cli.extension_package import package_files, renamed, write_package

    if kind is Kind.POPUP and (allow_site or allow_extension):
        raise typer.BadParameter(
            "--allow-site and --allow-extension need --kind background: a popup serves no others"
        )
    if include_models and model_hosts:
        raise typer.BadParameter("--include-models and --model-host contradict each other")
    sites = tuple(map(site_pattern, allow_site or ()))
    extensions = tuple(map(extension_id, allow_extension or ()))
    hosts = tuple(map(model_host, model_hosts or ()))
    number = __version__ if version is None else extension_version(version)
    site, out = site_folder(), Path(os.path.abspath(out))
    archive = out.parent / f"{out.name}.zip"
    _check_places(out, archive, site, force)
    files = package_files(site, kind)
    translations = {} if name is None else renamed(site, files, name)
    models = _find_models(model, include_models)
    records = [each.record for each in models]
    access = Access(_hosts(models, include_models, hosts), sites, extensions)
    manifest = extension_manifest(kind, number, access)
    contents: Contents = {
        **{file: site / file for file in files},
        **translations,
        **_included(models if include_models else []),
        CATALOGUE: catalogue(models, include_models),
        MANIFEST: f"{json.dumps(manifest, indent=2)}\n".encode(),
    }
    num_bytes = write_package(contents, out, archive)
    listed = ", ".join(record.model_id for record in records)
    say(f"{out} and {archive.name}: {size(num_bytes)}, with {listed}")
    for remark in [] if include_models else remarks(records):
        note(remark)
    if num_bytes > _MAX_STORE_BYTES:
        note("Chrome's store takes 2 GB at most; leave out --include-models or name other models.")
    note("To try it, open chrome://extensions, switch on developer mode and load the folder.")


def _included(models: list[SiteModel]) -> Contents:
    return {path: file for model in models for path, file in model.files.items()}


def _check_places(out: Path, archive: Path, site: Path, force: bool) -> None:
    """Raises ConfigError where something would be overwritten."""
    if not out.name:
        raise ConfigError(f"{out} has no name, and no place beside it for an archive; name another")
    check_folder(out, site, force)
    if os.path.isdir(archive):
        raise ConfigError(f"{archive} is a folder; name another folder than {out}")
    if os.path.lexists(archive) and not force:
        raise ConfigError(f"{archive} exists; name another folder, or overwrite it with --force")


def _find_models(names: list[str] | None, include_models: bool) -> list[SiteModel]:
    import asyncio

    from webllm.cli.extension_models import fetched_models, included_models
    from webllm.config import DEFAULT_MODEL_ID

    find = included_models if include_models else fetched_models
    with progress_bar() as on_progress:
        return asyncio.run(find(names or [DEFAULT_MODEL_ID], on_progress))


def _hosts(
    models: list[SiteModel], include_models: bool, redirected: tuple[str, ...]
) -> tuple[str, ...]:
    from webllm.cli.extension_models import model_hosts

    if include_models:
        return ()
    return (*model_hosts([each.record for each in models]), *redirected)
