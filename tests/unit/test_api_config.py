"""Configuration: the catalogue, WebLLM's JSON and what is refused."""

import msgspec
import pytest

from webllm.artifacts.source import PyPISource, parse_source
from webllm.config import (
    DEFAULT_MODEL_ID,
    AppConfig,
    ChatOptions,
    MLCEngineConfig,
    ModelRecord,
    prebuilt_app_config,
)
from webllm.errors import ConfigError, ModelNotFoundError


def test_the_catalogue_has_the_default_model_and_readable_sources() -> None:
    config = prebuilt_app_config()
    assert config.find(DEFAULT_MODEL_ID).model_id == DEFAULT_MODEL_ID
    for record in config.model_list:
        source = parse_source(record.source)
        assert isinstance(source, PyPISource)
        assert source.sha256 == record.sha256


def test_a_source_is_a_model_too() -> None:
    record = prebuilt_app_config().find("hf:owner/repo/folder/model-Q4_0.gguf")
    assert (record.model_id, record.source) == (
        "model-Q4_0",
        "hf:owner/repo/folder/model-Q4_0.gguf",
    )


def test_an_unknown_model_id_suggests_a_known_one() -> None:
    with pytest.raises(ModelNotFoundError, match="did you mean SmolLM2-135M-Instruct"):
        prebuilt_app_config().find("smollm2-135m")


def test_webllms_records_decode() -> None:
    record = msgspec.json.decode(
        b'{"model": "m", "model_id": "x", "model_lib": "l.wasm", "vram_required_MB": 5.5,'
        b' "overrides": {"context_window_size": 4096, "sliding_window_size": -1}}',
        type=ModelRecord,
    )
    assert record.vram_required_mb == 5.5
    assert record.overrides == ChatOptions(context_window_size=4096)
    decoded = msgspec.json.decode(b'{"model_list": [], "cacheBackend": "opfs"}', type=AppConfig)
    assert decoded.cache_backend == "opfs"


def test_options_are_laid_over_others() -> None:
    base = ChatOptions(temperature=0.5, top_p=0.9)
    assert ChatOptions(temperature=0.0).over(base) == ChatOptions(temperature=0.0, top_p=0.9)
    assert base.over(None) is base


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 3},
        {"context_window_size": 0},
        {"context_window_size": 5, "sliding_window_size": 5},
    ],
)
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        ChatOptions(**options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="num_threads"):
        MLCEngineConfig(num_threads=0)
