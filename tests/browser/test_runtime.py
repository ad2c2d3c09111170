"""webllm under Pyodide in a Web Worker."""

from __future__ import annotations

from browser.conftest import RunPython


async def test_webllm_imports_and_makes_an_engine(run_python: RunPython) -> None:
    version = await run_python("import sys; sys.platform")
    assert version == "emscripten"
    name = await run_python("import webllm; type(webllm.MLCEngine()).__name__")
    assert name == "MLCEngine"
