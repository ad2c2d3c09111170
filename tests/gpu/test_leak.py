"""Load, answer and unload ten times: all memory of the device and the host is free again."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import wgpu.backends.wgpu_native  # with its diagnostics

from golden import compare
from webllm import ChatOptions, MLCEngine, MLCEngineConfig


async def test_ten_loads_leave_nothing_behind() -> None:
    path = str(await compare.model_path("smollm2-135m"))
    question = [{"role": "user", "content": "Hi"}]
    gc.collect()
    used, before = [], alive()
    for _ in range(10):
        async with MLCEngine(MLCEngineConfig(device="webgpu")) as engine:
            await engine.reload(path, ChatOptions(context_window_size=256))
            await engine.chat.completions.create(messages=question, temperature=0, max_tokens=4)
        gc.collect()
        used.append(resident_bytes())
    assert all(count <= before[kind] for kind, count in alive().items())
    # A software adapter's memory is the host's. Mesa keeps some of what it compiled for a device;
    # the weights alone would be 98 MB a load.
    assert (used[-1] - used[2]) / 7 < 20 << 20, [u >> 20 for u in used]


LEFT_LOADED = """
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
    code = LEFT_LOADED.format(path=str(await compare.model_path("smollm2-135m")))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90)
    assert (ended.returncode, ended.stderr) == (3, "")


def alive() -> dict[str, int]:
    """Counts the driver library's objects; other tests may have left some."""
    counts = wgpu.diagnostics.wgpu_native_counts.get_dict()
    kinds = ("Adapter", "Device", "Buffer", "BindGroup", "CommandBuffer", "ComputePipeline")
    return {kind: counts[kind]["count"] for kind in kinds}


def resident_bytes() -> int:
    """Returns the bytes of this process's private resident pages (Linux)."""
    _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
    return (resident - shared) * 4096
