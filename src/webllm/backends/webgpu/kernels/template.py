"""WGSL of a kernel: a `.wgsl` file of this folder with its `$placeholders` filled in.

A kernel file holds no `enable` directive: the device adds those of its features, in its dialect.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from string import Template


def source(name: str, **snippets: str) -> str:
    """The text of `<name>.wgsl` with every `$key` replaced; KeyError if one is not given."""
    return Template(snippet(name)).substitute(snippets)


@cache
def snippet(name: str) -> str:
    """The text of `<name>.wgsl` as it is; `name` may hold a folder, as in "quant/planar4"."""
    return files(__package__).joinpath(f"{name}.wgsl").read_text(encoding="utf-8")
