"""The models of a site: files on this disk, and their paths on the site."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from webllm.artifacts.progress import ProgressCallback
from webllm.artifacts.resolve import ensure_artifact
from webllm.artifacts.source import LocalSource, parse_source
from webllm.artifacts.store import DirectoryStore
from webllm.cli.site import MODELS
from webllm.config import AppConfig, ModelRecord, prebuilt_app_config
from webllm.errors import ConfigError
from webllm.webllm_list import require_supported


@dataclass(frozen=True, slots=True)
class SiteModel:
    """A model's record in the site's catalogue, and its file on this disk."""

    record: ModelRecord
    file: Path

    @property
    def path(self) -> str:
        """Relative to the site, as a URL without its query."""
        return self.record.model.partition("?")[0]


async def site_models(names: Sequence[str], on_progress: ProgressCallback) -> list[SiteModel]:
    """Finds models by id, path or source, and downloads those that are not on this disk.

    Raises what `ensure_artifact` raises, and ConfigError for two with the same id.
    """
    known = prebuilt_app_config()
    records = [known.find(name) for name in names]
    for record in records:
        require_supported(record)
    paths = [f"{MODELS}/{_file_name(record.model_id)}" for record in records]
    for path, name in zip(paths, names, strict=True):
        if paths.count(path) > 1:
            raise ConfigError(f"{name!r} is given twice, or named like another; give it once")
    store = DirectoryStore()
    models = []
    for record, path in zip(records, paths, strict=True):
        source = parse_source(record.source)
        file = await ensure_artifact(source, store, on_progress)
        there = msgspec.structs.replace(
            record,
            model=path,
            size_bytes=file.stat().st_size,
            sha256=None if isinstance(source, LocalSource) else source.sha256,
        )
        models.append(SiteModel(there, file))
    return models


def with_version(model: SiteModel) -> SiteModel:
    """Gives a file without a hash a URL that changes with it, since browsers store it by URL."""
    if model.record.sha256 is not None:
        return model
    version = f"?{model.file.stat().st_mtime_ns:x}"
    record = msgspec.structs.replace(model.record, model=model.path + version)
    return SiteModel(record, model.file)


def catalogue(models: Sequence[SiteModel]) -> bytes:
    """Returns the contents of models.json."""
    config = AppConfig(model_list=tuple(model.record for model in models))
    return msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n"


def _file_name(model_id: str) -> str:
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', model_id).strip('.-') or 'model'}.gguf"
