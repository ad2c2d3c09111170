"""In a page's worker, on the CPU kernels as WebAssembly, replayed answers go on as undisturbed."""

from __future__ import annotations

import random
from pathlib import Path

from browser.conftest import RunPython
from golden import replay

LOAD = """
from webllm import AppConfig, ChatOptions, MLCEngine, MLCEngineConfig, ModelRecord

record = ModelRecord(model="/models/smollm2.gguf", model_id="smollm2")
config = MLCEngineConfig(app_config=AppConfig(model_list=(record,)), device="cpu")
engine = MLCEngine(config)
await engine.reload("smollm2", ChatOptions(context_window_size=256))
"""


async def test_replays_go_on_as_undisturbed(run_python: RunPython) -> None:
    await run_python(LOAD)
    await run_python(Path(replay.__file__).read_text())
    seed = random.getrandbits(32)
    print(f"the cuts of seed {seed}")
    await run_python(f"await check(engine, num_cuts=1, max_tokens=16, seed={seed})")
