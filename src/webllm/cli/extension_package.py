"""The files of a Chrome extension: an unpacked folder, and an archive for Chrome's store.

The archive is the same byte by byte whenever and wherever it is written from the same site and
models: times, order and permissions are fixed, and nothing is compressed.
"""

from __future__ import annotations

import json
import shutil
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from io import BytesIO
from pathlib import Path
from typing import IO

from webllm.artifacts.storage_errors import require_space, storage_errors
from webllm.cli.bundle import replacing
from webllm.cli.extension_manifest import ICON_SIZES, MESSAGES, Kind
from webllm.cli.site import MANIFEST, site_files
from webllm.errors import ArtifactError, ConfigError

Contents = Mapping[str, Path | bytes]  # by path in the extension, with slashes

_ENGLISH = "_locales/en/messages.json"
_NEEDED = (
    *("popup.html", "popup.js", "popup.css", _ENGLISH),
    *(f"icon-{size}.png" for size in ICON_SIZES),
    *("boot.js", "thread.js", "python.snapshot", "packages.zip", "extensions.zip"),
    *("pyodide/pyodide.mjs", "license.txt", "third-party-notices.txt"),
)
_NEEDED_BY_KIND = {
    Kind.POPUP: ("tab.js",),
    Kind.BACKGROUND: (
        *("background.js", "consent.html", "consent.js"),
        *("offscreen.html", "offscreen.js", "offscreen_worker.js"),
    ),
}
_ALSO = ("_locales/*/messages.json", "chunk-*.js", "icon.svg", "*.woff2", "pyodide/*")
_MAX_NAME_CHARS = 75  # Chrome's
_ANOTHER_FOLDER = "name a folder on another disk"
_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest of an archive
_MODE = stat.S_IFREG | 0o644


def package_files(site: Path, kind: Kind) -> list[str]:
    """Returns the site's files that an extension needs.

    Raises ArtifactError if one is missing, or an English text that the manifest names.
    """
    there = list(site_files(site))
    needed = (*_NEEDED, *_NEEDED_BY_KIND[kind])
    missing = [name for name in needed if name not in there]
    if missing:
        raise ArtifactError(
            f"{site} lacks the extension's {', '.join(missing)}; build it anew with `make site`, "
            "or install a wheel of webllm that contains it"
        )
    english = json.loads((site / _ENGLISH).read_bytes())
    untranslated = [key for key in MESSAGES if key not in english]
    if untranslated:
        raise ArtifactError(
            f"{site / _ENGLISH} lacks {', '.join(untranslated)}; build the site anew with "
            "`make site`"
        )
    return [
        name
        for name in there
        if name in needed or any(fnmatchcase(name, pattern) for pattern in _ALSO)
    ]


def renamed(site: Path, files: list[str], name: str) -> dict[str, bytes]:
    """Returns the translations with `name` as the extension's name in all languages.

    Raises ConfigError for a name that Chrome would refuse.
    """
    if not (name.strip() and name.isprintable()):
        raise ConfigError(f"--name is {name!r}; give a line of text")
    if len(name) > _MAX_NAME_CHARS:
        raise ConfigError(
            f"--name has {len(name)} characters; Chrome takes {_MAX_NAME_CHARS} at most"
        )
    written = {}
    for file in files:
        if file.startswith("_locales/"):
            messages = json.loads((site / file).read_bytes())
            messages["appName"] = {"message": name.replace("$", "$$")}
            written[file] = (json.dumps(messages, ensure_ascii=False, indent=2) + "\n").encode()
    return written


def write_package(contents: Contents, out: Path, archive: Path) -> int:
    """Writes a folder, its manifest last, and the archive of it; returns the archive's bytes.

    Other files in the folder stay, and do not get into the archive. Raises StorageFullError, and
    ArtifactError if a file cannot be written for another reason.
    """
    with storage_errors(out, _ANOTHER_FOLDER):
        out.mkdir(parents=True, exist_ok=True)
        num_bytes = sum(map(_num_bytes, contents.values()))
        require_space(out, 2 * num_bytes, "the extension", _ANOTHER_FOLDER)
        (out / MANIFEST).unlink(missing_ok=True)
        for name in sorted(contents, key=lambda name: (name == MANIFEST, name)):
            with _opened(contents[name]) as reader, replacing(out / name) as writer:
                shutil.copyfileobj(reader, writer)
        _write_archive(contents, archive)
        return archive.stat().st_size


def _write_archive(contents: Contents, archive: Path) -> None:
    with replacing(archive) as whole, zipfile.ZipFile(whole, "w") as file:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.create_system = 3  # Unix, whose permissions follow
            entry.external_attr = _MODE << 16
            entry.file_size = _num_bytes(contents[name])
            with _opened(contents[name]) as reader, file.open(entry, "w") as writer:
                shutil.copyfileobj(reader, writer)


def _num_bytes(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


@contextmanager
def _opened(content: Path | bytes) -> Iterator[IO[bytes]]:
    if isinstance(content, bytes):
        yield BytesIO(content)
    else:
        with content.open("rb") as file:
            yield file
