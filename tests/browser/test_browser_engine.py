"""SmolLM2 in a Web Worker, on the CPU kernels as WebAssembly."""

from __future__ import annotations

import json

from browser.conftest import RunPython
from golden import compare

LOAD = """
import json
from webllm import AppConfig, MLCEngine, MLCEngineConfig, ModelRecord

def engine_with(**options):
    record = ModelRecord(model="/models/smollm2.gguf", model_id="smollm2", **options)
    return MLCEngine(MLCEngineConfig(
        app_config=AppConfig(model_list=(record,)),
        device="cpu",
        init_progress_callback=reports.append,
    ))

reports = []
engine = engine_with()
await engine.reload("smollm2")
"""


async def test_greedy_text_is_the_golden_text(run_python: RunPython) -> None:
    """The text is the same, token for token, while every margin of the reference is wide."""
    await run_python(LOAD)
    wide = [p for p in compare.read("smollm2-135m")["prompts"] if p["wide_margin"]]
    assert len(wide) >= 2
    for prompt in wide:
        ask = (
            f"engine.completions.create(prompt={prompt['prompt']!r}, temperature=0, max_tokens=64)"
        )
        assert await run_python(f"(await {ask}).choices[0].text") == prompt["text"]


async def test_chat_streams_and_progress_is_monotone(run_python: RunPython) -> None:
    await run_python(LOAD)
    phases = json.loads(
        await run_python("json.dumps([[r.phase, r.progress, r.loaded_bytes] for r in reports])")
    )
    assert list(dict.fromkeys(phase for phase, *_ in phases)) == ["fetch", "upload", "compile"]
    progress = [each[1] for each in phases]
    assert progress == sorted(progress)
    assert progress[-1] == 1
    pieces = json.loads(
        await run_python("""
            messages = [{"role": "user", "content": "Name three colours."}]
            stream = await engine.chat.completions.create(
                messages=messages, temperature=0, max_tokens=24, stream=True
            )
            json.dumps([chunk.choices[0].delta.content async for chunk in stream])
        """)
    )
    assert len(pieces) > 5
    assert "Red" in "".join(piece or "" for piece in pieces)
