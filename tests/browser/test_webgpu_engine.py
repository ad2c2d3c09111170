"""Models on WebGPU in a Web Worker, on SwiftShader here: a token takes a third of a second."""

from __future__ import annotations

import json

from browser.conftest import RunPython
from golden import compare

ENGINE = """
import asyncio, json
from webllm import AppConfig, MLCEngine, MLCEngineConfig, ModelRecord

record = ModelRecord(model="/models/smollm2.gguf", model_id="smollm2")
config = MLCEngineConfig(app_config=AppConfig(model_list=(record,)), device="webgpu")
engine = MLCEngine(config)
await engine.reload("smollm2")

async def complete(prompt, max_tokens):
    request = {"prompt": prompt, "temperature": 0, "max_tokens": max_tokens}
    reply = await engine.completions.create(**request)
    return reply.choices[0].text
"""


async def test_greedy_text_of_two_requests_at_once(run_python: RunPython) -> None:
    golden = {prompt["name"]: prompt for prompt in compare.read("smollm2-135m")["prompts"]}
    plain, code = golden["plain"], golden["code"]
    await run_python(ENGINE)
    asked = f"complete({plain['prompt']!r}, 8), complete({code['prompt']!r}, 6)"
    results = json.loads(await run_python(f"json.dumps(await asyncio.gather({asked}))"))
    for prompt, text in zip((plain, code), results, strict=True):
        assert len(text) > 10
        assert prompt["text"].startswith(text)


async def test_a_software_adapter_is_not_chosen_by_itself(run_python: RunPython) -> None:
    await run_python("from webllm.backends.auto import open_backend")
    assert await run_python("type(await open_backend('auto')).__name__") == "CPUBackend"
