"""Unloading a model frees all its memory and GPU objects; a process may also end without it."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import wgpu.backends.wgpu_native  # type: ignore[import-untyped]  # fills wgpu.diagnostics

from golden import compare
from webllm import ChatOptions, MLCEngine, MLCEngineConfig


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
