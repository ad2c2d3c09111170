"""`unload` in the middle of a real load on the CPU: threads, memory and file are freed."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path

import pytest

from webllm import ChatOptions, MLCEngine, MLCEngineConfig
from webllm.artifacts.progress import InitProgressReport, Phase
from webllm.errors import ModelNotLoadedError

OPTIONS = ChatOptions(context_window_size=256)


def is_mapped(file: Path) -> bool:
    """Whether this process maps the file; unknown, so False, where there is no /proc."""
    maps = Path("/proc/self/maps")
    return sys.platform == "linux" and str(file.resolve()) in maps.read_text()


def kernel_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("webllm-cpu")]


@pytest.mark.parametrize(
    ("phase", "progress"), [(Phase.UPLOAD, 0.0), (Phase.UPLOAD, 0.5), (Phase.COMPILE, 0.0)]
)
async def test_nothing_is_left(smollm2: Path, phase: Phase, progress: float) -> None:
    is_there = asyncio.Event()

    def report(each: InitProgressReport) -> None:
        if each.phase is phase and each.progress >= progress:
            is_there.set()

    engine = MLCEngine(MLCEngineConfig(device="cpu"))
    loading = asyncio.create_task(engine.reload(str(smollm2), OPTIONS, on_progress=report))
    await is_there.wait()
    assert not loading.done()
    await engine.unload()
    assert kernel_threads() == []
    with pytest.raises(ModelNotLoadedError, match=r"was stopped by unload\(\)"):
        await loading
    assert not is_mapped(smollm2)
    await engine.reload(str(smollm2), OPTIONS)
    reply = await engine.completions.create(prompt="Hi", max_tokens=2)
    assert reply.choices[0].text
    await engine.unload()
