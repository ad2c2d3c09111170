"""Imports the modules of webllm that need no browser. Run in Pyodide by snapshot.mjs."""

import compileall
import importlib
import py_compile
import shutil
import sys
from pathlib import Path
from zipfile import ZipFile

# What memory cannot be kept of: JavaScript's objects, and extension modules.
NOT_YET = ("js", "msgspec")


def pack(folder: str, archive: str, *, unpacked: bool) -> None:
    """Moves the packages in `folder` into a zip archive, with bytecode where Python looks for it
    when it imports from the archive, or from what was unpacked.
    """
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH  # source and bytecode stay together
    if not compileall.compile_dir(
        folder, ddir=archive, quiet=1, legacy=not unpacked, invalidation_mode=unchecked
    ):
        raise RuntimeError(f"a module in {folder} cannot be compiled")
    shutil.make_archive(archive.removesuffix(".zip"), "zip", folder)
    shutil.rmtree(folder)


def import_early(package: str) -> int:
    """Imports each module of a package that needs nothing of NOT_YET; returns how many."""
    (folder,) = importlib.import_module(package).__path__
    archive, _, _ = folder.rpartition("/")
    names = [name for name in _modules(archive) if name.startswith(f"{package}.")]
    for missing in NOT_YET:
        sys.modules[missing] = None  # importing it fails
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    for missing in NOT_YET:
        del sys.modules[missing]
    return sum(name in sys.modules for name in names)


def _modules(archive: str) -> list[str]:
    files = [Path(name) for name in ZipFile(archive).namelist() if name.endswith(".py")]
    return sorted(
        ".".join(file.parts[:-1] if file.stem == "__init__" else file.with_suffix("").parts)
        for file in files
    )
