"""The counts that a run of this tier takes from the environment, and the figures that it gives."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable, Mapping

AddFigures = Callable[[str, Mapping[str, float]], None]  # their name, and they by theirs


def count(name: str, default: int) -> int:
    """Returns the number in the environment variable LONG_`name`."""
    return int(os.environ.get(f"LONG_{name}", default))


# Another seed in each run, so that runs add up; LONG_SEED repeats one.
SEED = count("SEED", secrets.randbelow(10**6))


def resident_bytes() -> int:
    """Returns the memory of this process."""
    command = ["ps", "-o", "rss=", "-p", str(os.getpid())]
    return 1024 * int(subprocess.run(command, capture_output=True, check=True).stdout)


def num_open_files() -> int:
    """Returns the number of this process's open files."""
    return len(os.listdir("/dev/fd"))
