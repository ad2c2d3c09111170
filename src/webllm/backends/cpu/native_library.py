"""Finds the native kernels and opens the variant that is fastest on this CPU."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from webllm.errors import ConfigError, DeviceNotFoundError

# The slowest first; `runnable_variants` in kernels.c returns a bit for each.
VARIANTS = {
    "x86_64": ("baseline", "avx2", "avxvnni", "avx512vnni"),
    "aarch64": ("baseline", "dotprod"),
}

FOLDER = Path(__file__).parent / "lib"
_SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
_MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}


def open_library(variant: str | None = None) -> ctypes.CDLL:
    """Opens `variant`, or the one that WEBLLM_CPU_ISA names, or the fastest that works here.

    A chosen variant is opened as it is; otherwise the first that passes its self-test is taken.
    Raises ConfigError if the named variant does not run here, DeviceNotFoundError if none does.
    """
    runnable = variants()
    wanted = variant or os.environ.get("WEBLLM_CPU_ISA")
    if wanted is None:
        return _first_correct(runnable[::-1])
    if wanted not in runnable:
        raise ConfigError(f"CPU kernels {wanted!r} do not run here; these do: {list(runnable)}")
    return _open(wanted)


def _first_correct(names: Sequence[str]) -> ctypes.CDLL:
    for name in names:
        library = _open(name)
        if library.self_test():
            return library
    raise DeviceNotFoundError(f"all CPU kernels compute wrongly on this machine: {list(names)}")


def variants() -> tuple[str, ...]:
    """Returns the variants that are built and run on this CPU, the fastest last."""
    names = VARIANTS.get(_MACHINES.get(platform.machine().lower(), ""), ("baseline",))
    runnable = int(_open("baseline").runnable_variants())
    return tuple(name for i, name in enumerate(names) if runnable >> i & 1 and _path(name).exists())


def _path(variant: str) -> Path:
    return FOLDER / f"webllm_cpu_{variant}{_SUFFIX}"


def _open(variant: str) -> ctypes.CDLL:
    path = _path(variant)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise DeviceNotFoundError(
            f"no CPU kernels for this machine ({error}); install webllm from a wheel for it, or "
            "build it here with a C compiler or the `ziglang` package"
        ) from error
