"""Models on WebGPU in a Web Worker, on SwiftShader here: the golden tests of the native backend,
in part, for a token takes a third of a second.
"""

from __future__ import annotations

import json
from base64 import b64decode

import numpy as np
import pytest

from browser.conftest import RunPython
from golden import compare

NUM_STEPS = 8

BACKEND = """
import base64
from webllm.artifacts.opening import open_model
from webllm.engine.devices import open_backend
from webllm.models import registry
from webllm.ops.program import BatchShape
from webllm.ops.step import Step, StepSequence

async def load(model):
    global executable
    backend = await open_backend("webgpu")
    limits = BatchShape(max_tokens=64, max_seqs=1, max_outputs=8, max_blocks=16)
    with await open_model(model, None, None) as checkpoint:
        program = registry.record(checkpoint, 256)
        await backend.load(program, checkpoint, 16, limits, lambda *_: None)
    executable = backend.compile(program, limits)

async def forced_logits(given, outputs):
    blocks = list(range(16))[::-1]
    executable.submit(Step((StepSequence(given, len(given), blocks, outputs),)))
    await executable.sampled()
    return base64.b64encode(await executable.logits()).decode()
"""

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
    return reply.choices[0].text, reply.usage.extra.decode_tokens_per_s
"""


@pytest.mark.parametrize(
    ("name", "file", "prompts"),
    [
        ("smollm2-135m", "smollm2", ["plain", "numbers", "chat_count"]),
        ("gemma3-270m", "gemma3", ["plain"]),
    ],
)
async def test_logits(run_python: RunPython, name: str, file: str, prompts: list[str]) -> None:
    await run_python(BACKEND)
    await run_python(f"await load('/models/{file}.gguf')")
    golden = {prompt["name"]: prompt for prompt in compare.read(name)["prompts"]}
    agreements = []
    for prompt in (golden[each] for each in prompts):
        first = len(prompt["prompt_ids"])
        given = prompt["prompt_ids"] + prompt["token_ids"][: NUM_STEPS - 1]
        outputs = list(range(first - 1, len(given)))
        data = b64decode(await run_python(f"await forced_logits({given}, {outputs})"))
        logits = np.frombuffer(data, np.float32).reshape(NUM_STEPS, -1)
        agreements.append(compare.agreement(logits.astype(np.float64), prompt))
    compare.check_float(agreements)


async def test_greedy_text_of_two_requests_at_once(run_python: RunPython) -> None:
    golden = {prompt["name"]: prompt for prompt in compare.read("smollm2-135m")["prompts"]}
    plain, code = golden["plain"], golden["code"]
    await run_python(ENGINE)
    asked = f"complete({plain['prompt']!r}, 8), complete({code['prompt']!r}, 6)"
    results = json.loads(await run_python(f"json.dumps(await asyncio.gather({asked}))"))
    for prompt, (text, _) in zip((plain, code), results, strict=True):
        assert len(text) > 10
        assert prompt["text"].startswith(text)
    text, rate = json.loads(await run_python(f"json.dumps(await complete({plain['prompt']!r}, 8))"))
    assert plain["text"].startswith(text)
    assert rate > 1, f"{rate} tokens a second"


async def test_a_software_adapter_is_not_chosen_by_itself(run_python: RunPython) -> None:
    await run_python("from webllm.engine.devices import open_backend")
    assert await run_python("type(await open_backend('auto')).__name__") == "CPUBackend"
