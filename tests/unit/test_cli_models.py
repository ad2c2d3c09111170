"""`webllm models --all`: WebLLM's list, on made-up machines."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from test_cli_devices import GPU, SOFTWARE
from typer.testing import CliRunner

from webllm.backends.webgpu.device import native_adapters
from webllm.backends.webgpu.device.protocol import Features
from webllm.cli.main import app

F16 = replace(GPU, features=Features(True, 32, 32, frozenset({"shader-f16"})))
Models = Callable[..., str]


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Models:
    """Runs the command on a machine with an adapter and its memory, or else with 4 GB for a CPU."""
    four_gb = 4 * 10**9
    monkeypatch.setattr("webllm.backends.cpu.system_memory.available_bytes", lambda: four_gb)
    monkeypatch.setattr(native_adapters, "memory_bytes", lambda _: 8 * 10**9)

    def run(*arguments: str, adapter: native_adapters.NativeAdapter = SOFTWARE) -> str:
        monkeypatch.setattr(native_adapters, "adapters", lambda: [adapter])
        result = CliRunner().invoke(app, ["models", *arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def row(shown: str, model_id: str) -> list[str]:
    (line,) = [line for line in shown.splitlines() if line.startswith(f"{model_id} ")]
    return line.split()


def test_all_models_are_shown_only_when_asked_for(models: Models) -> None:
    assert len(models().splitlines()) < 20
    assert len(models("--all").splitlines()) == 1 + 167


def test_what_a_model_needs_and_whether_it_fits(models: Models) -> None:
    tiny, large = "TinyLlama-1.1B-Chat-v1.0-q4f16_1-MLC", "Llama-3.1-8B-Instruct-q4f16_1-MLC"
    on_cpu, on_old = models("--all"), models("--all", adapter=GPU)
    on_gpu = models("--all", adapter=F16)
    facts = [tiny, "llama", "q4f16_1", "697", "MB", "shader-f16"]
    assert row(on_cpu, tiny) == row(on_gpu, tiny) == [*facts, "fits"]
    assert row(on_old, tiny) == [*facts, "requires", "shader-f16"]
    assert "on H200" in on_gpu.splitlines()[0]
    assert row(on_gpu, large)[-1] == "fits"
    assert "needs 5.0 GB of the 4.0 GB of memory" in on_cpu
    assert "its architecture does not run yet (phi3)" in on_cpu
    assert "weights of 3 bits cannot be read" in on_cpu


def test_texts_search_and_the_device_is_an_option(models: Models) -> None:
    shown: list[dict[str, Any]] = json.loads(models("llama-3", "8B", "F16", "--json"))
    assert len(shown) == 7
    assert all("Llama-3" in each["model_id"] for each in shown)
    assert {each["problem"] for each in shown} == {
        "needs 5.0 GB of the 4.0 GB of memory that there are",
        "needs 4.9 GB of the 4.0 GB of memory that there are",
        "needs 4.6 GB of the 4.0 GB of memory that there are",
    }
    (gemma,) = json.loads(models("gemma3-1b", "--json", "--device", "cpu", adapter=F16))
    assert gemma == {
        "model_id": "gemma3-1b-it-q4f16_1-MLC",
        "family": "gemma3_text",
        "quantization": "q4f16_1",
        "vram_required_MB": 711.07,
        "low_resource_required": True,
        "required_features": [],
        "problem": None,
        "is_on_disk": False,
    }
    assert json.loads(models("no such model", "--json")) == []


def test_a_model_that_does_not_run_is_not_fetched(models: Models) -> None:
    for command in ("pull", "web"):
        options = ["--model"] if command == "web" else []
        result = CliRunner().invoke(app, [command, *options, "phi-2-q4f16_1-MLC"])
        assert result.exit_code != 0
        assert "phi-2-q4f16_1-MLC cannot be loaded" in f"{result.output}{result.exception}"
