"""The models of a site: files on this disk, and their paths on the site."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from msgspec import structs

from webllm.artifacts.progress import ProgressCallback
from webllm.artifacts.resolve import ensure_model
from webllm.artifacts.source import LocalSource, parse_source
from webllm.artifacts.store import DirectoryStore
from webllm.cli.site import MODELS
from webllm.config import AppConfig, ModelRecord, prebuilt_app_config
from webllm.errors import ConfigError, IntegrityError
from webllm.webllm_list import require_supported

_VERSION_DIGITS = 16


@dataclass(frozen=True, slots=True)
class SiteModel:
    """A model's record in the site's catalogue, and its files on this disk by their paths there."""

    record: ModelRecord
    files: Mapping[str, Path]

    @property
    def nbytes(self) -> int:
        return sum(file.stat().st_size for file in self.files.values())

    def with_hashes(self, hashes: Mapping[str, str]) -> SiteModel:
        """Returns the model with the SHA-256 of each of its files, by their paths on the site.

        A single file has it in its record. The folder of several is named after them. Raises
        IntegrityError for a hash that differs from the record's.
        """
        if len(self.files) > 1:
            return self._in_folder(hashes)
        [(path, file)] = self.files.items()
        promised, sha256 = self.record.sha256, hashes[path]
        if promised not in (None, sha256):
            raise IntegrityError(
                f"{file} has the SHA-256 {sha256}, expected {promised}; delete it "
                f"(webllm rm {self.record.model_id}) and try again"
            )
        return replace(self, record=structs.replace(self.record, sha256=sha256))

    def with_dates(self) -> SiteModel:
        """Returns the model at a URL that changes with its files: browsers store them by URL."""
        dates = {path: f"{file.stat().st_mtime_ns:x}" for path, file in self.files.items()}
        if len(self.files) > 1:
            return self._in_folder(dates)
        if self.record.sha256 is not None:
            return self
        [(path, date)] = dates.items()
        return replace(self, record=structs.replace(self.record, model=f"{path}?{date}"))

    def _in_folder(self, versions: Mapping[str, str]) -> SiteModel:
        """Puts several files into a folder whose name tells these versions of them from others."""
        named = "".join(f"{path}\n{version}\n" for path, version in sorted(versions.items()))
        version = hashlib.sha256(named.encode()).hexdigest()[:_VERSION_DIGITS]
        folder = posixpath.dirname(self.record.model)

        def moved(path: str) -> str:
            return f"{folder}/{version}/{path.removeprefix(folder + '/')}"

        files = {moved(path): file for path, file in self.files.items()}
        return SiteModel(structs.replace(self.record, model=moved(self.record.model)), files)


async def site_models(names: Sequence[str], on_progress: ProgressCallback) -> list[SiteModel]:
    """Finds models by id, path or source, and downloads those that are not on this disk.

    Raises what `ensure_model` raises, and ConfigError for two with the same id.
    """
    known = prebuilt_app_config()
    records = [known.find(name) for name in names]
    for record in records:
        require_supported(record)
    folders = [f"{MODELS}/{_file_name(record.model_id)}" for record in records]
    for folder, name in zip(folders, names, strict=True):
        if folders.count(folder) > 1:
            raise ConfigError(f"{name!r} is given twice, or named like another; give it once")
    store = DirectoryStore()
    models = []
    for record, folder in zip(records, folders, strict=True):
        source = parse_source(record.source)
        found = await ensure_model(source, store, on_progress)
        if len(found.paths) == 1:
            [file] = found.paths.values()
            path = f"{folder}.gguf"
            files = {path: file}
        else:
            path = f"{folder}/{found.entry}"
            files = {f"{folder}/{name}": file for name, file in found.paths.items()}
        there = structs.replace(
            record,
            model=path,
            sha256=None if isinstance(source, LocalSource) else source.sha256,
        )
        model = SiteModel(there, files)
        models.append(replace(model, record=structs.replace(there, size_bytes=model.nbytes)))
    return models


def catalogue(models: Sequence[SiteModel]) -> bytes:
    """Returns the contents of models.json."""
    config = AppConfig(model_list=tuple(model.record for model in models))
    return msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n"


def _file_name(model_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", model_id).strip(".-") or "model"
