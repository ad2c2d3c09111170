"""The files of a model in a folder of this disk, read in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from webllm.artifacts.files import FileSpec
from webllm.artifacts.needed import SINGLE_FILE, find_entry, is_entry, needed
from webllm.errors import ModelNotFoundError


@dataclass(frozen=True, slots=True)
class ModelPaths:
    """The files of a model on this disk, by their names; the only file of one by its path.

    entry: the name of the file at which it begins, which tells the format.
    """

    entry: str
    paths: Mapping[str, Path]


class LocalFolder:
    """A folder of this disk; see `Folder` for its members. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def path(self, name: str) -> Path:
        return self._path / name

    async def load(self, name: str) -> bytes | None:
        file = self.path(name)
        return file.read_bytes() if file.is_file() else None

    async def find(self, name: str) -> FileSpec | None:
        file = self.path(name)
        return FileSpec(name, file.stat().st_size) if file.is_file() else None

    async def names(self) -> Sequence[str]:
        return sorted(each.name for each in self._path.iterdir() if each.is_file())


async def local_model(path: Path) -> ModelPaths:
    """Returns the files of the model at `path`: one of its files, or their folder.

    Raises ModelNotFoundError if there is none, or several, CheckpointError for a document that is
    malformed, OSError if one may not be read.
    """
    if path.is_dir():
        folder = LocalFolder(path)
        entry = await find_entry(folder)
    elif path.is_file():
        if not is_entry(path.name):
            return ModelPaths(SINGLE_FILE, {str(path): path})
        folder, entry = LocalFolder(path.parent), path.name
    else:
        raise ModelNotFoundError(f"{path} does not exist; {_way_out(path)}")
    files = {each.name: folder.path(each.name) for each in await needed(entry, folder)}
    for file in files.values():
        file.open("rb").close()
    if len(files) == 1:
        files = {str(file): file for file in files.values()}
    return ModelPaths(entry, files)


def _way_out(path: Path) -> str:
    if len(path.parts) == 2 and not path.is_absolute() and not path.parent.exists():
        return f"check the path, or write hf:{path.as_posix()} for a repository of Hugging Face"
    return "check the path"
