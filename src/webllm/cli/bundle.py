"""`webllm bundle`: a static site with models in it, for any file host."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from webllm.artifacts.storage_errors import require_space, storage_errors
from webllm.cli.options import SiteModelsOption
from webllm.cli.site import CATALOGUE, MANIFEST, page_files, site_folder
from webllm.cli.site_worker import PAGE, SERVICE_WORKER, with_hashes, without_service_worker
from webllm.cli.terminal import progress_bar, say, size
from webllm.errors import ConfigError

if TYPE_CHECKING:
    from webllm.cli.site_models import SiteModel

_CHUNK_BYTES = 4 << 20
_ANOTHER_FOLDER = "name a folder on another disk"


def bundle(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write to.")],
    model: SiteModelsOption = None,
    no_model: Annotated[
        bool, typer.Option("--no-model", help="Write the site alone, with an empty list of models.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write into a folder that is not empty.")
    ] = False,
    service_worker: Annotated[
        bool,
        typer.Option(
            "--service-worker/--no-service-worker",
            help="With a Service Worker, by which the site works offline, and has threads on any "
            "host.",
        ),
    ] = True,
) -> None:
    """Write the chat page and models as a static site.

    Any file host can serve it, under any path; it fetches nothing from elsewhere.
    """
    import asyncio

    from webllm.cli.site_models import site_models
    from webllm.config import DEFAULT_MODEL_ID

    if model and no_model:
        raise typer.BadParameter("--model and --no-model contradict each other")
    site = site_folder()
    check_folder(out, site, force)
    names = [] if no_model else model or [DEFAULT_MODEL_ID]
    with progress_bar() as on_progress:
        models = asyncio.run(site_models(names, on_progress))
    num_bytes = write_bundle(site, models, out, service_worker)
    listed = ", ".join(each.record.model_id for each in models) or "no model"
    say(f"{out}: {size(num_bytes)}, with {listed}")


def check_folder(out: Path, site: Path, force: bool) -> None:
    """Raises ConfigError for a folder where a bundle or an extension would overwrite something.

    Raises ArtifactError for one that cannot be read.
    """
    with storage_errors(out, "name another folder"):
        if os.path.lexists(out) and not out.is_dir():
            what = "is a file" if out.exists() else "is a link to nothing"
            raise ConfigError(f"{out} {what}; name a folder")
        if out.resolve().is_relative_to(site.resolve()):
            raise ConfigError(f"{out} lies in the site's own folder; name another one")
        if force or not os.path.lexists(out) or not any(out.iterdir()):
            return
    what = "is not empty"
    for file, written in ((MANIFEST, "extension"), (CATALOGUE, "bundle")):
        if (out / file).is_file():
            what = f"contains an earlier {written}"
            break
    raise ConfigError(
        f"{out} {what}; name another folder, or write into it with --force, which deletes nothing"
    )


def write_bundle(
    site: Path, models: list[SiteModel], out: Path, has_service_worker: bool = True
) -> int:
    """Writes a site and models into `out`, the catalogue last; returns the number of bytes.

    Without a Service Worker, one of an earlier bundle in `out` is deleted, upon which it leaves the
    browsers that have it.

    Raises StorageFullError, ArtifactError if a file cannot be written for another reason, and
    IntegrityError for a model whose hash differs from its record's.
    """
    from webllm.cli.site_models import catalogue

    files = list(page_files(site))
    with storage_errors(out, _ANOTHER_FOLDER):
        out.mkdir(parents=True, exist_ok=True)
        num_bytes = sum((site / name).stat().st_size for name in files)
        num_bytes += sum(model.nbytes for model in models)
        require_space(out, num_bytes, "the bundle", _ANOTHER_FOLDER)
        (out / CATALOGUE).unlink(missing_ok=True)
        hashes = {name: _copy(site / name, out / name) for name in files}
        _write_service_worker(out, hashes, has_service_worker)
        (out / CATALOGUE).write_bytes(catalogue([_copy_model(model, out) for model in models]))
    return num_bytes


def _write_service_worker(out: Path, hashes: dict[str, str], has_service_worker: bool) -> None:
    worker, page = out / SERVICE_WORKER, out / PAGE
    if has_service_worker:
        worker.write_bytes(with_hashes(worker.read_bytes(), hashes))
    else:
        worker.unlink()
        page.write_bytes(without_service_worker(page.read_bytes()))


@contextmanager
def replacing(target: Path) -> Iterator[IO[bytes]]:
    """Opens a new file, which takes the place of `target` once it is complete.

    Until then `target` can be read: it may be, or link to, the very file that is copied.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(".webllm.part")
    try:
        with partial.open("wb") as file:
            yield file
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> str:
    """Copies a file; returns its SHA-256 in hex."""
    digest = hashlib.sha256()
    with source.open("rb") as reader, replacing(target) as writer:
        while chunk := reader.read(_CHUNK_BYTES):
            digest.update(chunk)
            writer.write(chunk)
    return digest.hexdigest()


def _copy_model(model: SiteModel, out: Path) -> SiteModel:
    """Copies a model; returns it as it is there. Several files are hashed before."""
    if len(model.files) > 1:
        model = hashed(model)
        for path, file in model.files.items():
            _copy(file, out / path)
        return model
    return model.with_hashes({path: _copy(file, out / path) for path, file in model.files.items()})


def hashed(model: SiteModel) -> SiteModel:
    """Returns the model with the SHA-256 of its files; raises what `with_hashes` raises."""
    return model.with_hashes({path: sha256_of(file) for path, file in model.files.items()})


def sha256_of(file: Path) -> str:
    with file.open("rb") as reader:
        return hashlib.file_digest(reader, "sha256").hexdigest()
