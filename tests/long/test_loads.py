"""An engine that loads and unloads a model many times keeps neither memory nor files."""

from __future__ import annotations

import gc
import random
import time
from pathlib import Path
from statistics import median

import pytest
from made_up_models import Sizes, draft_of

from long.figures import AddFigures, count, num_open_files, resident_bytes
from webllm import MLCEngine, MLCEngineConfig

NUM_LOADS = count("LOADS", 50)
NUM_FIRST = max(3, NUM_LOADS // 5)  # loads until memory settles
MAX_GROWTH = 0.02  # per load, of the model's file


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 66 MB."""
    file = tmp_path_factory.mktemp("model") / "model.gguf"
    sizes = Sizes("llama", hidden=1024, wide=4096, heads=16, kv_heads=4, head_dim=64, layers=4)
    file.write_bytes(draft_of(random.Random(0), sizes).packed())
    return file


@pytest.mark.parametrize("device", ["cpu", "webgpu"])
async def test_loads_leave_nothing(model: Path, device: str, add_figures: AddFigures) -> None:
    memory, open_files, seconds = list[int](), list[int](), list[float]()
    texts = set[str]()
    engine = MLCEngine(MLCEngineConfig(device=device))
    for _ in range(NUM_LOADS):
        started = time.monotonic()
        await engine.reload(str(model))
        seconds.append(time.monotonic() - started)
        reply = await engine.completions.create(prompt="Hi", max_tokens=4, temperature=0)
        texts.add(reply.choices[0].text)
        await engine.unload()
        gc.collect()
        memory.append(resident_bytes())
        open_files.append(num_open_files())
    settled = memory[NUM_FIRST:]
    half = len(settled) // 2
    growth = (median(settled[half:]) - median(settled[:half])) / half
    figures = {"loads": NUM_LOADS, "median load (ms)": 1000 * median(seconds)}
    figures |= {"growth per load (KB)": growth / 1e3, "resident at the end (MB)": memory[-1] / 1e6}
    add_figures(f"loads, {device}", figures)
    assert len(texts) == 1
    assert growth < MAX_GROWTH * model.stat().st_size, [num_bytes >> 20 for num_bytes in memory]
    assert len(set(open_files[NUM_FIRST:])) == 1, open_files
