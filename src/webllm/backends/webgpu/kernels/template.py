"""The WGSL of a kernel: a `.wgsl` file of this folder with its `$placeholders` filled in.

Lines such as `//# epilogue_store` cut a file into parts. The text before the first of them is the
file itself, "linear/gemv"; a part is named "linear/gemv#epilogue_store". Files in folders named
`parts` have no entry point: kernels include them or their parts.

No file has an `enable` directive: the device adds those of its features, in its dialect.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from string import Template


def source(name: str, **values: str) -> str:
    """Returns a file or part with every `$key` replaced; raises KeyError if one is not given."""
    return Template(part(name)).substitute(values)


def part(name: str) -> str:
    """Returns a file or part as it is; raises KeyError if the file has no such part."""
    file, _, title = name.partition("#")
    return _parts(file)[title]


@cache
def _parts(file: str) -> dict[str, str]:
    whole, *others = re.split(r"^//# (\w+)\n", text(file), flags=re.MULTILINE)
    return {"": whole, **dict(zip(others[::2], others[1::2], strict=True))}


def text(file: str) -> str:
    """Returns all of `<file>.wgsl`, its parts included."""
    return files(__package__).joinpath(f"{file}.wgsl").read_text(encoding="utf-8")
