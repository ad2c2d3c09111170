"""`webllm models`, `webllm pull` and `webllm rm`: known models, and those on this disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from webllm.cli.options import DeviceOption, ModelArgument
from webllm.cli.terminal import note, print_table, progress_bar, say, size
from webllm.errors import ModelNotFoundError

if TYPE_CHECKING:
    from webllm.backends.auto import DeviceFacts
    from webllm.config import ModelRecord


def models(
    search: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TEXT]...",
            help="Search WebLLM's list too: show the models whose id has all these texts.",
            show_default=False,
        ),
    ] = None,
    show_all: Annotated[
        bool, typer.Option("--all", "-a", help="Show the models of WebLLM's list too.")
    ] = False,
    device: DeviceOption = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the models known by name and all others on this disk."""
    if show_all or search:
        _show_all(search or [], device, as_json)
    else:
        _show_short(as_json)


def _show_short(as_json: bool) -> None:
    from webllm.artifacts.store import DirectoryStore
    from webllm.config import prebuilt_app_config
    from webllm.webllm_list import webllm_models

    store = DirectoryStore()
    here = {model.source: model for model in store.models()}
    listed = {record.model_id for record in webllm_models()}
    rows = []
    for record in prebuilt_app_config().model_list:
        entry = here.pop(_source_of(record), None)
        if entry or record.model_id not in listed:
            num_bytes = entry.size_bytes if entry else record.size_bytes
            rows.append((record.model_id, num_bytes, entry is not None))
    rows += [(entry.source, entry.size_bytes, True) for entry in here.values()]
    if as_json:
        names = ("model_id", "size_bytes", "is_on_disk")
        say(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=2))
        return
    table = [
        (name, size(num_bytes), "yes" if is_here else "no") for name, num_bytes, is_here in rows
    ]
    print_table(("model", "size", "on disk"), table)
    note(f"Models are stored in {store.root}. A path, https://…, hf:… or pypi:… also names one.")
    note(f"`webllm models --all` shows the {len(listed)} models of WebLLM's list as well.")


def _show_all(texts: Sequence[str], device: str, as_json: bool) -> None:
    """Shows what each model needs, and whether it fits the device."""
    import asyncio

    from webllm.artifacts.store import DirectoryStore
    from webllm.backends.auto import device_facts
    from webllm.config import prebuilt_app_config

    facts = asyncio.run(device_facts(device))
    here = {model.source for model in DirectoryStore().models()}
    records = prebuilt_app_config().model_list
    found = [each for each in records if all(_has(each.model_id, text) for text in texts)]
    rows = [_row(record, facts, _source_of(record) in here) for record in found]
    if as_json:
        say(json.dumps(rows, indent=2))
        return
    columns = ("model", "family", "weights", "memory", "needs", f"on {facts.name}")
    print_table(columns, [_cells(row) for row in rows])
    fitting = sum(row["problem"] is None for row in rows)
    note(
        f"{fitting} of {len(rows)} fit. An id may be cut before its quantization: "
        "Llama-3.2-1B-Instruct is the one for this device."
    )


def _row(record: ModelRecord, device: DeviceFacts, is_on_disk: bool) -> dict[str, Any]:
    from webllm.engine.device_fit import why_not
    from webllm.webllm_list import facts

    family, quantization = facts(record) or (None, None)
    return {
        "model_id": record.model_id,
        "family": family,
        "quantization": quantization,
        "vram_required_MB": record.vram_required_mb,
        "low_resource_required": record.low_resource_required,
        "required_features": record.required_features,
        "problem": why_not(record, device),
        "is_on_disk": is_on_disk,
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    memory = row["vram_required_MB"]
    return (
        row["model_id"],
        row["family"] or "",
        row["quantization"] or "",
        size(int(memory * 1e6)) if memory else "?",
        " ".join(row["required_features"]),
        row["problem"] or ("fits, on disk" if row["is_on_disk"] else "fits"),
    )


def _source_of(record: ModelRecord) -> str:
    from webllm.artifacts.source import parse_source

    return str(parse_source(record.source))


def _has(model_id: str, text: str) -> bool:
    return text.lower() in model_id.lower()


def pull(model: ModelArgument) -> None:
    """Download a model."""
    import asyncio

    from webllm.artifacts.resolve import ensure_model
    from webllm.artifacts.source import parse_source
    from webllm.artifacts.store import DirectoryStore
    from webllm.webllm_list import require_supported

    record = _record(model)
    require_supported(record)
    source = parse_source(record.source)
    with progress_bar() as on_progress:
        found = asyncio.run(ensure_model(source, DirectoryStore(), on_progress))
    for path in found.paths.values():
        say(str(path))


def rm(model: ModelArgument) -> None:
    """Delete a downloaded model from this disk."""
    from webllm.artifacts.source import LocalSource, parse_source
    from webllm.artifacts.store import DirectoryStore

    source = parse_source(_record(model).source)
    if isinstance(source, LocalSource):
        raise typer.BadParameter(f"{source} is your own file, not a downloaded model")
    store = DirectoryStore()
    try:
        freed_bytes = store.delete(source)
    except ModelNotFoundError:
        raise ModelNotFoundError(f"{model} is not on this disk ({store.root})") from None
    say(f"Deleted {model}, which freed {size(freed_bytes)}.")


def _record(model: str) -> ModelRecord:
    """Returns the record of an id or source; of an id that leaves the choice, as a load does."""
    import asyncio

    from webllm.config import prebuilt_app_config
    from webllm.engine.device_fit import chosen_variant

    catalogue = prebuilt_app_config()
    return asyncio.run(chosen_variant(catalogue.find(model), catalogue))
