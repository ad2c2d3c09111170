"""Configuration: the catalogue, WebLLM's JSON, and refused values."""

from pathlib import Path

import msgspec
import pytest

from webllm.artifacts.source import HubSource, PyPISource, parse_source
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
    for record in config.model_list[:2]:
        source = parse_source(record.source)
        assert isinstance(source, PyPISource)
        assert source.sha256 == record.sha256
    for record in config.model_list[2:]:
        assert isinstance(parse_source(record.source), HubSource)


def test_a_source_is_a_model_too() -> None:
    record = prebuilt_app_config().find("hf:owner/repo/folder/model-Q4_0.gguf")
    assert (record.model_id, record.source) == (
        "model-Q4_0",
        "hf:owner/repo/folder/model-Q4_0.gguf",
    )


def test_an_unknown_model_id_suggests_a_known_one() -> None:
    with pytest.raises(ModelNotFoundError, match="did you mean SmolLM2-135M-Instruct"):
        prebuilt_app_config().find("smollm2-135m")
    for wanted, known in (
        ("Llama-3.1-8B", "Llama-3.1-8B-Instruct"),
        ("qwen2.5-0.5b-instruct-q4f16", "Qwen2.5-0.5B-Instruct-q4f16_1-MLC"),
        ("Phi3.5-mini-instruct", "Phi-3.5-mini-instruct"),
    ):
        with pytest.raises(ModelNotFoundError, match=f"did you mean {known}\\?"):
            prebuilt_app_config().find(wanted)
    known = "known are SmolLM2-135M-Instruct, gemma-3-270m, Llama-.* and 163 more"
    with pytest.raises(ModelNotFoundError, match=known):
        prebuilt_app_config().find("GPT-4o")


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


# As JSON.stringify writes WebLLM's prebuiltAppConfig (model libraries v0_2_80); the second record
# has the fields that few records have.
PREBUILT = """{
    "cacheBackend": "indexeddb",
    "model_list": [{
        "model": "https://huggingface.co/mlc-ai/Llama-3.2-1B-Instruct-q4f16_1-MLC",
        "model_id": "Llama-3.2-1B-Instruct-q4f16_1-MLC",
        "model_lib": "https://raw.githubusercontent.com/mlc-ai/binary-mlc-llm-libs/main/web-llm-\
models/v0_2_80/Llama-3.2-1B-Instruct-q4f16_1-ctx4k_cs1k-webgpu.wasm",
        "vram_required_MB": 879.04,
        "low_resource_required": true,
        "required_features": ["shader-f16"],
        "overrides": {"context_window_size": 4096}
    }, {
        "model": "https://huggingface.co/mlc-ai/Phi-3.5-vision-instruct-q4f16_1-MLC",
        "model_id": "Phi-3.5-vision-instruct-q4f16_1-MLC",
        "model_lib": "x.wasm",
        "vram_required_MB": 3952.18,
        "low_resource_required": true,
        "overrides": {"context_window_size": -1, "sliding_window_size": 1024,
                      "attention_sink_size": 0},
        "buffer_size_required_bytes": 262144000,
        "model_type": 2
    }]
}"""


def test_webllms_catalogue_decodes() -> None:
    config = msgspec.json.decode(PREBUILT, type=AppConfig, strict=True)
    assert config.cache_backend == "indexeddb"
    llama, phi = config.model_list
    assert llama == ModelRecord(
        model="https://huggingface.co/mlc-ai/Llama-3.2-1B-Instruct-q4f16_1-MLC",
        model_id="Llama-3.2-1B-Instruct-q4f16_1-MLC",
        model_lib=llama.model_lib,
        vram_required_mb=879.04,
        low_resource_required=True,
        required_features=("shader-f16",),
        overrides=ChatOptions(context_window_size=4096),
    )
    assert llama.model_lib is not None
    assert llama.model_lib.endswith("webgpu.wasm")
    assert config.find(phi.model_id) is phi
    assert (phi.model_type, phi.buffer_size_required_bytes) == ("VLM", 262144000)
    assert phi.overrides == ChatOptions(sliding_window_size=1024, attention_sink_size=0)


@pytest.mark.parametrize(("number", "name"), [(0, "LLM"), (1, "embedding"), (2, "VLM")])
def test_webllms_model_types_are_numbers(number: int, name: str) -> None:
    plain = {"model": "m", "model_id": "x", "model_type": number}
    assert msgspec.convert(plain, ModelRecord).model_type == name
    assert msgspec.convert({**plain, "model_type": name}, ModelRecord).model_type == name
    with pytest.raises(msgspec.ValidationError, match="model_type"):
        msgspec.convert({**plain, "model_type": 3}, ModelRecord)


def test_chat_options_of_webllm_decode() -> None:
    """An mlc-chat-config.json has all of them; fields that are not ours have no effect."""
    plain = {
        "tokenizer_files": ["tokenizer.json"],
        "vocab_size": 32000,
        "context_window_size": -1,
        "sliding_window_size": 4096,
        "attention_sink_size": 4,
        "repetition_penalty": 1.1,
        "frequency_penalty": 0.5,
        "presence_penalty": -0.5,
        "top_p": 0.95,
        "temperature": 0.7,
        "bos_token_id": 1,
        "conv_template": {"system_template": "{system_message}", "roles": {"user": "U"}},
    }
    options = msgspec.convert(plain, ChatOptions)
    for name in ChatOptions.__struct_fields__:
        expected = None if name == "context_window_size" else plain.get(name)
        assert getattr(options, name) == expected, name


def test_options_are_laid_over_others() -> None:
    base = ChatOptions(temperature=0.5, top_p=0.9)
    assert ChatOptions(temperature=0.0).over(base) == ChatOptions(temperature=0.0, top_p=0.9)
    assert base.over(None) is base


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 3},
        {"temperature": -1},
        {"top_p": 1.5},
        {"repetition_penalty": 0},
        {"frequency_penalty": 3},
        {"presence_penalty": -3},
        {"attention_sink_size": 5000},
        {"sliding_window_size": -5},
        {"context_window_size": 0},
        {"context_window_size": 5, "sliding_window_size": 5},
        {"quantize": "q5_0"},
    ],
)
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        ChatOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["num_threads", "kv_cache_tokens"])
def test_impossible_engine_configurations_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is 0; give at least 1"):
        MLCEngineConfig(**{name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_threads", "4"), ("kv_cache_tokens", 1.5), ("max_waiting_sequences", None)],
)
def test_counts_of_another_type_are_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value!r}; give at least "):
        MLCEngineConfig(**{name: value})  # type: ignore[arg-type]


def test_a_site_has_its_own_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built_in = prebuilt_app_config()
    ours = built_in.model_list[0]
    file = tmp_path / "models.json"
    here = msgspec.structs.replace(ours, model="https://site/m.gguf", model_id="mine")
    file.write_bytes(msgspec.json.encode(AppConfig(model_list=(here,))))
    monkeypatch.setenv("WEBLLM_MODELS", str(file))
    ids = [record.model_id for record in prebuilt_app_config().model_list]
    assert ids == ["mine", *(record.model_id for record in built_in.model_list[2:])]
    found = built_in.find(ours.model_id)  # a client sends this if it knows the package's list
    assert found == msgspec.structs.replace(ours, model="https://site/m.gguf")
    assert built_in.find(built_in.model_list[1].model_id).model.startswith("pypi:")
    for text in ("", "[]", '{"model_list": [{"model": 1}]}', '{"models": null}'):
        file.write_text(text)
        with pytest.raises(ConfigError, match="WEBLLM_MODELS names"):
            prebuilt_app_config()
