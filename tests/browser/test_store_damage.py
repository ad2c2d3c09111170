"""Damaged bytes in a browser's store are noticed, and only their part is fetched anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from browser.conftest import RunPython
from browser.site_server import SiteServer
from browser.store_cases import (
    FLIP,
    OPEN,
    PART_BYTES,
    STORES,
    answer,
    source_of,
    tensors_digest,
    write_model,
)

START = (
    OPEN
    + """
import logging

warned = []
log = logging.getLogger("webllm.artifacts.browser.models")
log.addFilter(lambda record: warned.append(record.getMessage()))  # and nothing in the console
"""
)
WAYS = {
    "flipped": FLIP,
    "shortened": "bytes.subarray(1)",
    "emptied": "new Uint8Array()",
    "deleted": "undefined",
}


@pytest.fixture
def small_file(site: SiteServer) -> Iterator[Path]:
    """Writes a new model file into the site's folder /models/."""
    answer(site)
    yield write_model(site.folders["models"] / "small.gguf")
    answer(site)


def range_of(part: int) -> str:
    start = part * PART_BYTES
    return f"bytes={start}-" + (str(start + PART_BYTES - 1) if part < 4 else "")


@pytest.mark.parametrize("store", STORES)
async def test_a_damaged_part_is_fetched_anew(
    site: SiteServer, run_python: RunPython, small_file: Path, store: str
) -> None:
    """Part 0 has the header, part 4 the vector; the others are read after the file is open."""
    source, digest = source_of(small_file), tensors_digest(small_file)
    await run_python(START)
    assert await run_python(f"await read({source!r}, {store!r})") == digest
    for part, way in zip((0, 1, 2, 4), WAYS, strict=True):
        await run_python(f"await damage({store!r}, {part}, {WAYS[way]!r})")
        answer(site)
        assert await run_python(f"await read({source!r}, {store!r})") == digest, way
        assert site.models.ranges == [range_of(part)], way
    answer(site)
    assert await run_python(f"await read({source!r}, {store!r})") == digest
    assert site.models.ranges == []
    assert await run_python("len(warned)") == len(WAYS) - 1  # a deleted part is not damaged


async def test_several_damaged_parts_that_one_read_meets(
    site: SiteServer, run_python: RunPython, small_file: Path
) -> None:
    source, digest = source_of(small_file), tensors_digest(small_file)
    await run_python(START)
    assert await run_python(f"await read({source!r}, 'opfs')") == digest
    for part in (1, 3):
        await run_python(f"await damage('opfs', {part}, {FLIP!r})")
    answer(site)
    assert await run_python(f"await read({source!r}, 'opfs')") == digest
    requested = sorted(map(str, site.models.ranges))  # at once, so in any order
    assert requested == sorted([range_of(1), range_of(3)])


async def test_a_read_that_meets_more_damage_after_each_repair(run_python: RunPython) -> None:
    """`gather` has 32 windows under way, and finds damage in later ones after a repair only."""
    await run_python("""
        from webllm.artifacts.browser.files import SourceFile
        from webllm.errors import IntegrityError

        class Windows:
            size = 1

            def __init__(self, num_damaged):
                self.num_damaged = num_damaged

            async def read(self, start, end):
                if self.num_damaged:
                    raise IntegrityError(f"{self.num_damaged} parts are damaged")
                return "the bytes"

        async def read(num_damaged, repaired_at_once=1):
            left = num_damaged

            async def repair():
                nonlocal left
                left -= repaired_at_once
                return Windows(left)

            try:
                return await SourceFile(Windows(left), repair).read(0, 1)
            except IntegrityError as error:
                return str(error)
    """)
    assert await run_python("await read(3)") == "the bytes"
    assert await run_python("await read(1, 0)") == "1 parts are damaged"  # not for ever


async def test_another_tab_deletes_a_model_that_is_being_read(
    site: SiteServer, run_python: RunPython, small_file: Path
) -> None:
    source, digest = source_of(small_file), tensors_digest(small_file)
    await run_python(START)
    found = await run_python(f"""
        from webllm.artifacts.browser.models import delete_model

        with await open_model({source!r}, "opfs", None) as checkpoint:
            await delete_model({source!r}, "opfs")
            found = await digest(checkpoint)
        found
    """)
    assert found == digest
    assert await run_python(f"await read({source!r}, 'opfs')") == digest
    assert site.models.ranges == [None, None]


async def test_a_damaged_part_that_cannot_be_fetched(
    site: SiteServer, run_python: RunPython, small_file: Path
) -> None:
    await run_python(START)
    source = "/models/small.gguf"
    digest = await run_python(f"await read({source!r}, 'cache')")
    await run_python(f"await damage('cache', 2, {FLIP!r})")
    answer(site, num_answers=0)
    broken = f"""
        try:
            found = await read({source!r}, "cache")
        except WebLLMError as error:
            found = f"{{type(error).__name__}}: {{error}}"
        found
    """
    error = await run_python(broken)
    assert error.startswith(f"IntegrityError: {site.url}/models/small.gguf is damaged in the ")
    assert "cannot be fetched: the server answered 503" in error
    answer(site)
    assert await run_python(broken) == digest  # the other parts are still stored
    assert len(site.models.ranges) == 1
    await run_python(f"await damage('cache', 2, {FLIP!r})")
    write_model(small_file, first=100)
    answer(site, etag='"2"')
    error = await run_python(broken)
    assert error.startswith("IntegrityError: http")
    assert error.endswith(
        "the server has another version by now, which is stored instead; load it again"
    )
    assert await run_python(broken) == tensors_digest(small_file)
