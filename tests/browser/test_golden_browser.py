"""The native backends' golden tests, in a Web Worker: the CPU kernels as WebAssembly, and WebGPU.

On SwiftShader here, where a prompt takes a quarter of a minute: fewer prompts than the CPU kernels.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from browser.conftest import RunPython
from golden import compare

LOAD = """
import json
from pyodide.code import run_js
from pyodide.ffi import to_js
from webllm.artifacts.auto import open_model
from webllm.backends.auto import open_backend
from webllm.models import registry
from webllm.ops.program import BatchShape
from webllm.ops.step import (Step, StepSequence)

limits = BatchShape(max_tokens=768, max_seqs=1, max_outputs=64, max_blocks=48)

async def load(device, model):
    backend = await open_backend(device)
    with await open_model(model, None, None) as checkpoint:
        program = registry.record(checkpoint, 768)
        await backend.load(program, checkpoint, 48, limits, lambda *_: None)
    return backend.compile(program, limits)

async def steps(given, ids):
    # by step: the top token, then the log-probs of its ids
    outputs = list(range(len(given) - len(ids), len(given)))
    executable.submit(Step((StepSequence(given, len(given), list(range(48))[::-1], outputs),)))
    await executable.sampled()
    logits = to_js(memoryview(await executable.logits()).cast("B"))
    return json.dumps(summary(logits, to_js(ids)).to_py())

summary = run_js('''(bytes, ids) => {
  const logits = new Float32Array(bytes.buffer);
  const vocabSize = logits.length / ids.length;
  return ids.map((wanted, step) => {
    const row = logits.subarray(step * vocabSize, (step + 1) * vocabSize);
    const top = row.reduce((best, each, id) => (each > row[best] ? id : best), 0);
    const sum = row.reduce((sum, each) => sum + Math.exp(each - row[top]), 0);
    return [top, ...wanted.map((id) => row[id] - row[top] - Math.log(sum))];
  });
}''')
"""


@pytest.mark.parametrize(
    ("device", "name", "prompts"),
    [
        ("cpu", "smollm2-135m", slice(None)),
        ("cpu", "gemma3-270m", slice(None)),
        ("webgpu", "smollm2-135m", slice(1, 3)),
        ("webgpu", "gemma3-270m", slice(2, 3)),
    ],
)
async def test_logits(run_python: RunPython, device: str, name: str, prompts: slice) -> None:
    await run_python(LOAD)
    file = name.partition("-")[0]
    await run_python(f"executable = await load({device!r}, '/models/{file}.gguf')")
    agreements = []
    for prompt in compare.read(name)["prompts"][prompts]:
        given = prompt["prompt_ids"] + prompt["token_ids"][:-1]
        ids = compare.compared_ids(prompt).tolist()
        summary = np.array(json.loads(await run_python(f"await steps({given}, {ids})")))
        agreements.append(compare.agreement(prompt, summary[:, 0], summary[:, 1:]))
    (compare.check_int8 if device == "cpu" else compare.check_float)(agreements)
