"""Unloading a model frees all its memory and GPU objects; a process may also end without it."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from pathlib import Path

import pytest
import wgpu.backends.wgpu_native  # type: ignore[import-untyped]  # fills wgpu.diagnostics

from golden import compare
from webllm import ChatOptions, MLCEngine, MLCEngineConfig
from webllm.artifacts.progress import InitProgressReport, Phase
from webllm.backends.auto import open_backend
from webllm.errors import ModelNotLoadedError


async def test_ten_loads_leave_nothing_behind() -> None:
    path = str(await compare.model_path("smollm2-135m"))
    question = [{"role": "user", "content": "Hi"}]
    gc.collect()
    memory, before = [], gpu_objects()
    for _ in range(10):
        async with MLCEngine(MLCEngineConfig(device="webgpu")) as engine:
            await engine.reload(path, ChatOptions(context_window_size=256))
            await engine.chat.completions.create(messages=question, temperature=0, max_tokens=4)
        gc.collect()
        memory.append(resident_bytes())
    assert all(count <= before[kind] for kind, count in gpu_objects().items())
    # A software adapter's memory is the host's, so that a leak of weights would show here: 98 MB a
    # load. Mesa keeps some of its compiled code, so that growth is never zero.
    assert (memory[-1] - memory[2]) / 7 < 20 << 20, [num_bytes >> 20 for num_bytes in memory]


ENDS_WITHOUT_UNLOAD = """
import asyncio
from webllm import ChatOptions, MLCEngineConfig, create_mlc_engine

async def main():
    global engine
    options = ChatOptions(context_window_size=256)
    engine = await create_mlc_engine({path!r}, MLCEngineConfig(device="webgpu"), options)
    await engine.completions.create(prompt="Hi", max_tokens=5, ignore_eos=True)

asyncio.run(main())
raise SystemExit(3)
"""


async def test_a_program_may_end_with_a_model_loaded() -> None:
    code = ENDS_WITHOUT_UNLOAD.format(path=str(await compare.model_path("smollm2-135m")))
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=90
    )
    assert (process.returncode, process.stderr) == (3, "")


def gpu_objects() -> dict[str, int]:
    """Returns the number of wgpu-native's live objects of each kind, in this process."""
    counts = wgpu.diagnostics.wgpu_native_counts.get_dict()
    kinds = ("Adapter", "Device", "Buffer", "BindGroup", "CommandBuffer", "ComputePipeline")
    return {kind: counts[kind]["count"] for kind in kinds}


def resident_bytes() -> int:
    """Returns this process's private memory in use (Linux)."""
    _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
    return (resident - shared) * 4096


@pytest.mark.parametrize("phase", [Phase.UPLOAD, Phase.COMPILE])
async def test_loads_that_unload_stops_leave_nothing_behind(phase: Phase) -> None:
    path = str(await compare.model_path("smollm2-135m"))
    gc.collect()
    before = gpu_objects()
    for _ in range(3):
        is_there = asyncio.Event()

        def report(each: InitProgressReport, is_there: asyncio.Event = is_there) -> None:
            if each.phase is phase:
                is_there.set()

        engine = MLCEngine(MLCEngineConfig(device="webgpu"))
        options = ChatOptions(context_window_size=256)
        loading = asyncio.create_task(engine.reload(path, options, on_progress=report))
        await is_there.wait()
        assert not loading.done()
        await engine.unload()
        with pytest.raises(ModelNotLoadedError):
            await loading
    gc.collect()
    assert all(count <= before[kind] for kind, count in gpu_objects().items())


@pytest.mark.parametrize("after_ms", [0, 50, 100, 200])
async def test_a_device_that_is_being_opened_is_closed(after_ms: int) -> None:
    """Wherever the opening is stopped: while the device is requested, or in the self-test."""
    gc.collect()
    before = gpu_objects()
    opening = asyncio.create_task(open_backend("webgpu"))
    await asyncio.sleep(after_ms / 1000)
    opening.cancel()
    await asyncio.wait([opening])
    if not opening.cancelled():
        opening.result().close()
    del opening
    await asyncio.get_running_loop().shutdown_default_executor()  # it may still look for adapters
    gc.collect()
    assert all(count <= before[kind] for kind, count in gpu_objects().items())
