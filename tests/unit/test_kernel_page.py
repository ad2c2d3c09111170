"""docs/kernels.md agrees with the code, and every kernel file is named in Python."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kernel_page import PAGE, page
from webllm.artifacts.checkpoint import StorageType
from webllm.backends.webgpu import kernels
from webllm.backends.webgpu.kernels.repack import unpacking_part

FOLDER = Path(kernels.__file__).parent
FILES = {path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.wgsl")}
NAMES = set(
    re.findall(r'"([\w/]+(?:#\w+)?)"', "".join(p.read_text() for p in FOLDER.rglob("*.py")))
) | {unpacking_part(dtype) for dtype in StorageType if dtype.supported}


async def test_the_page_is_what_the_code_chooses() -> None:
    want = await page()
    assert PAGE.read_text() == want, "run make generated"


@pytest.mark.parametrize("file", sorted(FILES))
def test_python_spells_the_name_of_every_file_and_part(file: str) -> None:
    """A search for a name then finds its users; parts of storage types have the types' names."""
    text = (FOLDER / f"{file}.wgsl").read_text()
    titles = re.findall(r"^//# (\w+)$", text, re.MULTILINE)
    assert len(titles) == len(set(titles))
    used = {name for name in NAMES if name.partition("#")[0] == file}
    assert used - {file} == {f"{file}#{title}" for title in titles}
    assert used


@pytest.mark.parametrize("file", sorted(FILES))
def test_files_outside_of_parts_are_kernels(file: str) -> None:
    is_kernel = "@compute" in (FOLDER / f"{file}.wgsl").read_text()
    assert is_kernel == ("parts/" not in file)
