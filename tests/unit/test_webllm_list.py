"""WebLLM's list of models: every id resolves and is classified, and those that fit are chosen."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections import Counter
from typing import Any

import msgspec
import pytest
from fake_model import NumberModels, number_models

from webllm.backends.auto import DeviceFacts
from webllm.config import AppConfig, MLCEngineConfig, ModelRecord, prebuilt_app_config
from webllm.engine import device_fit, model_store
from webllm.engine.device_fit import choose, require_fit, why_not
from webllm.engine.engine import MLCEngine
from webllm.engine.loaded_model import LoadedModel
from webllm.errors import FeatureSupportError, ShaderF16SupportError, UnsupportedModelError
from webllm.host import BROWSER, NATIVE
from webllm.webllm_list import (
    ARCHITECTURES,
    QUANTIZATIONS,
    facts,
    parse_name,
    webllm_models,
    why_unsupported,
)

__all__ = ["number_models"]  # a fixture

LISTED = webllm_models()
MODELS = sorted({name.model for each in LISTED if (name := parse_name(each.model_id))})
GB = 10**9
CPU = DeviceFacts("CPU", None, 64 * GB)
GPU = DeviceFacts("a GPU", frozenset({"shader-f16"}), 64 * GB)
F32_GPU = DeviceFacts("an old GPU", frozenset(), 64 * GB)
TINY = "TinyLlama-1.1B-Chat-v1.0"


def use_device(monkeypatch: pytest.MonkeyPatch, device: DeviceFacts) -> None:
    async def device_facts(_: str) -> DeviceFacts:
        return device

    monkeypatch.setattr(device_fit, "device_facts", device_facts)


def test_every_id_is_classified() -> None:
    by_architecture: Counter[str] = Counter()
    for record in LISTED:
        known = facts(record)
        assert known is not None, record.model_id
        architecture, quantization = known
        name = parse_name(record.model_id)
        assert name is not None
        assert name.quantization == quantization
        runs = ARCHITECTURES[architecture] is None and QUANTIZATIONS[quantization] is None
        assert (why_unsupported(record) is None) == runs
        by_architecture[architecture] += 1
    assert len(LISTED) == 165
    assert by_architecture.keys() == ARCHITECTURES.keys()
    assert by_architecture["llama"] == 47
    assert sum(why_unsupported(each) is None for each in LISTED) == 98


@pytest.mark.parametrize("record", LISTED, ids=lambda each: each.model_id)
def test_ids_resolve_as_they_are(record: ModelRecord) -> None:
    assert prebuilt_app_config().find(record.model_id) is record
    assert record.model.startswith("https://huggingface.co/mlc-ai/")
    assert record.model_id.startswith(record.model.removeprefix("https://huggingface.co/mlc-ai/"))


def test_the_facts_of_a_record() -> None:
    assert prebuilt_app_config().find("Qwen3.5-0.8B-q4f16_1-MLC") == msgspec.convert(
        {
            "model": "https://huggingface.co/mlc-ai/Qwen3.5-0.8B-q4f16_1-MLC",
            "model_id": "Qwen3.5-0.8B-q4f16_1-MLC",
            "low_resource_required": True,
            "vram_required_MB": 1629.49,
            "overrides": {"context_window_size": 4096, "max_history_size": 1},
        },
        ModelRecord,
    )
    kilo = prebuilt_app_config().find("gemma-2-2b-it-q4f16_1-MLC-1k")
    assert kilo.model == "https://huggingface.co/mlc-ai/gemma-2-2b-it-q4f16_1-MLC"
    assert kilo.overrides is not None
    assert kilo.overrides.context_window_size == 1024
    assert kilo.required_features == ("shader-f16",)
    embedding = prebuilt_app_config().find("snowflake-arctic-embed-s-q0f32-MLC-b4")
    assert (embedding.model_type, embedding.overrides) == ("embedding", None)


@pytest.mark.parametrize("model", MODELS)
def test_a_shorter_id_is_the_preferred_variant(model: str) -> None:
    config = prebuilt_app_config()
    variants = config.variants(model)
    memory = [each.vram_required_mb or 0 for each in variants]
    assert memory == sorted(memory), "the preferred one takes the least memory"
    assert len({str(each.overrides) for each in variants}) == 1
    found = config.find(model)
    if model == "SmolLM2-135M-Instruct":  # the id of a built-in model
        assert found.model.startswith("pypi:")
        assert config.choices(found) == []
        return
    assert found == msgspec.structs.replace(variants[0], model_id=model)
    assert config.choices(found) == variants
    assert config.choices(variants[0]) == []


@pytest.mark.parametrize(
    ("model", "device", "chosen"),
    [
        ("Llama-3.1-8B-Instruct", CPU, "Llama-3.1-8B-Instruct-q4f16_1-MLC"),
        ("Llama-3.1-8B-Instruct", GPU, "Llama-3.1-8B-Instruct-q4f16_1-MLC"),
        ("Llama-3.1-8B-Instruct", F32_GPU, "Llama-3.1-8B-Instruct-q4f32_1-MLC"),
        (TINY, CPU, f"{TINY}-q4f16_1-MLC"),
        (TINY, F32_GPU, f"{TINY}-q4f32_1-MLC"),
        ("SmolLM2-135M-Instruct", F32_GPU, "SmolLM2-135M-Instruct-q0f32-MLC"),
        ("gemma3-1b-it", F32_GPU, "gemma3-1b-it-q4f16_1-MLC"),  # requires no feature
        ("WizardMath-7B-V1.1", F32_GPU, "WizardMath-7B-V1.1-q4f16_1-MLC"),  # there is no other
        ("phi-2", CPU, "phi-2-q4f16_1-MLC"),
    ],
)
def test_the_variant_for_a_device(model: str, device: DeviceFacts, chosen: str) -> None:
    assert choose(prebuilt_app_config().variants(model), device).model_id == chosen


def test_what_fits_a_device() -> None:
    find = prebuilt_app_config().find
    assert why_not(find(f"{TINY}-q4f16_1-MLC"), CPU) is None
    assert why_not(find(f"{TINY}-q4f16_1-MLC"), F32_GPU) == "requires shader-f16"
    large = find("Llama-3.1-8B-Instruct-q4f16_1-MLC")
    assert why_not(large, DeviceFacts("a GPU", frozenset(), None)) is None
    assert why_not(large, DeviceFacts("CPU", None, 4 * GB)) == (
        "needs 5.0 GB of the 4.0 GB of memory that there are"
    )
    assert why_not(find("phi-2-q4f16_1-MLC"), CPU) == "its architecture does not run yet (phi)"


async def test_a_missing_feature_is_refused_with_the_variant_to_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = prebuilt_app_config().find(f"{TINY}-q4f16_1-MLC")
    use_device(monkeypatch, F32_GPU)
    instead = f"an old GPU lacks; load {TINY}-q4f32_1-MLC, or run it with device='cpu'"
    for host in (NATIVE, BROWSER):
        with pytest.raises(ShaderF16SupportError, match=instead):
            await require_fit(record, MLCEngineConfig(), host)
    other = ModelRecord(model="m.gguf", model_id="own", required_features=("timestamp-query",))
    with pytest.raises(FeatureSupportError, match=r"requires timestamp-query, .*; run it with"):
        await require_fit(other, MLCEngineConfig(), NATIVE)
    for device in (CPU, GPU):
        use_device(monkeypatch, device)
        await require_fit(record, MLCEngineConfig(), NATIVE)


async def test_too_little_memory_is_said_before_a_download(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record = prebuilt_app_config().find("Llama-3.1-8B-Instruct-q4f16_1-MLC")
    use_device(monkeypatch, DeviceFacts("CPU", None, 4 * GB))
    with caplog.at_level(logging.WARNING, "webllm"):
        await require_fit(record, MLCEngineConfig(), NATIVE)
    assert caplog.messages == [
        "Llama-3.1-8B-Instruct-q4f16_1-MLC may not fit: it needs 5.0 GB of the 4.0 GB of memory "
        "that there are"
    ]
    caplog.clear()

    async def has_model(*_: object) -> bool:
        return True

    monkeypatch.setattr(device_fit, "has_model", has_model)
    await require_fit(record, MLCEngineConfig(), NATIVE)
    assert caplog.messages == []


@pytest.mark.parametrize(
    "source", ["https://huggingface.co/mlc-ai/{}/resolve/main/", "hf:mlc-ai/{}"]
)
async def test_what_does_not_run_is_refused_before_anything_is_loaded(
    number_models: NumberModels, source: str
) -> None:
    engine = number_models.engine()
    own = ModelRecord(model=source.format("phi-2-q4f32_1-MLC"), model_id="own")
    engine.set_app_config(AppConfig(model_list=(own, *LISTED)))
    for refused in ("own", "Phi-3.5-vision-instruct-q4f16_1-MLC", "Llama-3-70B-Instruct"):
        with pytest.raises(UnsupportedModelError, match=f"{refused} cannot be loaded: "):
            await engine.reload(["a.gguf", refused])
    assert number_models.loaded == []


async def test_a_shorter_id_loads_the_variant_under_that_id(
    number_models: NumberModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = []

    async def load_model(record: ModelRecord, *given: Any) -> LoadedModel:
        sources.append(record.model)
        return await number_models.load(record, *given)

    use_device(monkeypatch, F32_GPU)
    engine = MLCEngine(load_model=load_model)
    engine.set_app_config(AppConfig(model_list=LISTED))
    await engine.reload(TINY)
    assert engine.loaded_model_ids() == [TINY]
    assert engine.has_loaded(TINY)
    assert sources == [f"https://huggingface.co/mlc-ai/{TINY}-q4f32_1-MLC"]


async def test_stored_models_are_found_by_the_shorter_id(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def has_model(source: str, _: Any) -> bool:
        asked.append(source)
        return True

    monkeypatch.setattr("webllm.artifacts.auto.has_model", has_model)
    for device, quantization in ((F32_GPU, "q4f32_1"), (GPU, "q4f16_1")):
        use_device(monkeypatch, device)
        assert await model_store.has_model_in_cache(TINY)
        assert asked.pop() == f"https://huggingface.co/mlc-ai/{TINY}-{quantization}-MLC"


def test_importing_reads_no_list() -> None:
    code = "import webllm.config, webllm.webllm_list as each; print(each._rows.cache_info().misses)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert ended.stdout.strip() == b"0"
