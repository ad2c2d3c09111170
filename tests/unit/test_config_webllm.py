"""Configurations from WebLLM's documentation and users are read; errors in them are explained."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from webllm import MLCEngine, MLCEngineConfig
from webllm.config import (
    AppConfig,
    ChatOptions,
    ModelRecord,
    prebuilt_app_config,
    read_config,
)
from webllm.errors import ConfigError, ModelNotFoundError
from webllm.workers.messages import SET_APP_CONFIG, Request, Throw, read_request

# appConfig of CreateMLCEngine("Llama-3.1-8B-Instruct", …) in WebLLM's documentation, section
# "Using IndexedDB Cache", as it was and as it is now.
DOCUMENTED: list[dict[str, Any]] = [
    {
        "useIndexedDB": True,
        "models": [{"model_id": "Llama-3.1-8B", "model_path": "/models/llama3"}],
    },
    {
        "cacheBackend": "indexeddb",
        "models": [{"model_id": "Llama-3.1-8B", "model_path": "/models/llama3"}],
    },
]

SRI = f"sha256-{'a' * 43}="


@pytest.mark.parametrize("documented", DOCUMENTED)
async def test_the_documented_configuration_names_its_model(documented: dict[str, Any]) -> None:
    config = read_config(documented, AppConfig)
    assert config.cache_backend == "indexeddb"
    assert [(each.model_id, each.source) for each in config.model_list] == [
        ("Llama-3.1-8B", "/models/llama3")
    ]
    assert msgspec.json.decode(msgspec.json.encode(config), type=AppConfig) == config
    engine = MLCEngine(MLCEngineConfig(app_config=documented))  # type: ignore[arg-type]
    with pytest.raises(ModelNotFoundError, match=r"did you mean Llama-3\.1-8B\?"):
        await engine.reload("Llama-3.1-8B-Instruct")


@pytest.mark.parametrize("name", ["useIndexedDBCache", "useIndexedDB"])
def test_a_store_alone_keeps_the_built_in_catalogue(name: str) -> None:
    config = read_config({name: True}, AppConfig)
    assert config.cache_backend == "indexeddb"
    assert config.model_list == prebuilt_app_config().model_list
    assert AppConfig(model_list=()).model_list == ()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cacheBackend": "bogus"}, "cacheBackend has to be one of 'cache'.*received 'bogus'"),
        ({"cacheBackend": "cross-origin"}, "'cross-origin' needs .* give 'cache', 'indexeddb'"),
        ({"opfsAccessMode": "sync"}, "opfsAccessMode is 'sync'; leave it out, or give 'async'"),
        ({"opfsAccessMode": "fast"}, "opfsAccessMode has to be one of .*received 'fast'"),
        ({"cache_backend": "opfs"}, "unknown field 'cache_backend'; did you mean cacheBackend"),
        ({"modelList": []}, "unknown field 'modelList'; did you mean model_list"),
        ({"useIndexedDb": True}, "unknown field 'useIndexedDb'; did you mean useIndexedDB"),
        (
            {"bogus": 1},
            "unknown field 'bogus'; known are cacheBackend, hubToken, hubUrl, model_list, models",
        ),
        ({"models": [], "model_list": []}, "models is another name for model_list"),
        ({"useIndexedDB": True, "cacheBackend": "opfs"}, "cacheBackend is 'opfs' and useIndexed"),
        ({"model_list": 3}, "model_list: expected array, got int, received 3"),
        ({"model_list": [{"model": "m"}]}, r"model_list\[0\].model_id is missing"),
        ({"models": [{"model_id": "m"}]}, "'m' names no source; give model"),
        (
            {"models": [{"model_id": "m", "model_url": "u"}]},
            r"models\[0\]: unknown field 'model_url'; did you mean model",
        ),
        (
            {"models": [{"model_id": "m", "model": "m", "overrides": {"topP": 1}}]},
            r"models\[0\].overrides: unknown field 'topP'; did you mean top_p\?",
        ),
        (
            {"models": [{"model_id": "m", "model": "m", "overrides": {"temperature": 9}}]},
            "temperature is 9.0; give a number from 0 to 2",
        ),
        ([], "expected object, got array, received \\[\\]"),
    ],
)
def test_what_is_wrong_is_named_with_the_way_out(wrong: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config(wrong, AppConfig)
    request = {"kind": "setAppConfig", "uuid": "1", "content": wrong}
    with pytest.raises(ConfigError) as caught:
        read_request(request)
    error = Throw.of(caught.value, "1").error
    assert isinstance(error, msgspec.Struct)
    assert error.name == "ConfigError"
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(error.message)


def test_wrong_options_of_a_reload_are_named() -> None:
    content = {"modelId": ["m"], "chatOpts": [{}, {"contextWindowSize": 5}]}
    with pytest.raises(ConfigError) as caught:
        read_request({"kind": "reload", "uuid": "1", "content": content})
    error = Throw.of(caught.value, "1")
    hint = "ChatOptions: unknown field 'contextWindowSize'; did you mean context_window_size?"
    assert error.content == f"ConfigError: {hint}"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cache_backend": "bogus"}, "cacheBackend is 'bogus'; give 'cache', 'indexeddb'"),
        ({"cache_backend": "cross-origin"}, "'cross-origin' needs a browser extension"),
        ({"opfs_access_mode": "sync"}, "opfsAccessMode is 'sync'"),
        ({"model_list": 3}, "model_list is 3; give a list of records"),
        ({"model_list": ["m"]}, "expected object, got str, received 'm'"),
    ],
)
def test_python_is_held_to_the_same(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AppConfig(**fields)


@pytest.mark.parametrize("options", [{"temperature": "hot"}, {"context_window_size": "4k"}])
def test_options_are_numbers(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))} is '"):
        ChatOptions(**options)


def test_records_may_be_mappings() -> None:
    record = {"model_id": "m", "model_path": "m.gguf", "vram_required_MB": 5}
    config = AppConfig(model_list=[record])  # type: ignore[arg-type]
    assert config.find("m").vram_required_mb == 5


def test_every_field_of_webllms_is_taken() -> None:
    """The fields of AppConfig, ModelRecord and ChatOptions in npm's 0.2.86."""
    options = {
        "tokenizer_files": ["tokenizer.json"],
        "tokenizer_info": {"token_postproc_method": "byte_level", "prepend_space_in_encode": False},
        "token_table_postproc_method": "byte_level",
        "vocab_size": 32000,
        "conv_template": {"roles": {"user": "U", "assistant": "A"}, "seps": ["\n"]},
        "conv_config": {"seps": ["\t"]},
        "context_window_size": 2048,
        "sliding_window_size": -1,
        "attention_sink_size": -1,
        "max_history_size": 1,
        "repetition_penalty": 1.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "top_p": 1.0,
        "temperature": 0.5,
        "bos_token_id": 1,
        "model_type": "llama",
        "model_config": {"mm_tokens_per_image": 256},
    }
    record = {
        "model": "https://site/m",
        "model_id": "m",
        "model_lib": "m.wasm",
        "overrides": options,
        "vram_required_MB": 1.0,
        "low_resource_required": True,
        "buffer_size_required_bytes": 1,
        "required_features": ["shader-f16"],
        "model_type": 0,
        "integrity": {"config": SRI, "tokenizer": {"a": SRI}, "onFailure": "warn"},
        "model_manifest": "mlc-model-manifest.json",
    }
    config = {
        "model_list": [record],
        "cacheBackend": "opfs",
        "opfsAccessMode": "auto",
        "use_web_worker": True,
    }
    found = read_config(config, AppConfig).find("m").overrides
    assert found is not None
    assert found.conv_template == {"roles": {"user": "U", "assistant": "A"}, "seps": ["\t"]}
    assert found.context_window_size == 2048


def test_a_part_of_a_conversation_template_needs_the_whole() -> None:
    with pytest.raises(ConfigError, match=r"conv_config is .* give conv_template"):
        ChatOptions(conv_config={"system_message": "Be brief."})


def test_a_good_configuration_crosses_unchanged() -> None:
    config = AppConfig(model_list=(ModelRecord(model_id="m", model="m.gguf"),))
    message = {"kind": "setAppConfig", "uuid": "1", "content": msgspec.to_builtins(config)}
    request = read_request(message)
    assert isinstance(request, Request)
    assert (request.kind, request.uuid, request.content) == (SET_APP_CONFIG.name, "1", config)
