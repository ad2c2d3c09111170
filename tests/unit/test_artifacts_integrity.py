"""Hashes that records promise of files, and mirrors and tokens of the hub."""

import hashlib
import logging
from base64 import b64encode
from pathlib import Path

import pytest

from webllm.artifacts.auto import open_model
from webllm.artifacts.hub_access import HubAccess
from webllm.artifacts.integrity import Integrity
from webllm.artifacts.local_files import LocalFiles
from webllm.artifacts.source import parse_source
from webllm.config import AppConfig, MLCEngineConfig, ModelRecord, read_config
from webllm.engine import loading
from webllm.errors import ConfigError, IntegrityError, UnsupportedModelError
from webllm.host import NATIVE
from webllm.model_record import ChatOptions, ModelIntegrity

KINDS = ["sha256", "sha384", "sha512"]
CONFIG, TOKENIZER = b'{"a": 1}', b"{}"


def sri(kind: str, data: bytes) -> str:
    return f"{kind}-{b64encode(hashlib.new(kind, data).digest()).decode()}"


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    for name, data in (("mlc-chat-config.json", CONFIG), ("tokenizer.json", TOKENIZER)):
        (tmp_path / name).write_bytes(data)
    return LocalFiles({file.name: file for file in tmp_path.iterdir()})


NAMES = ["mlc-chat-config.json", "tokenizer.json"]


@pytest.mark.parametrize("kind", KINDS)
async def test_right_hashes_pass_and_wrong_ones_are_named(kind: str, files: LocalFiles) -> None:
    record = ModelIntegrity(
        config=sri(kind, CONFIG), tokenizer={"tokenizer.json": sri(kind, TOKENIZER)}
    )
    await Integrity(record.hashes).verify(NAMES, files)
    wrong = sri(kind, b"another")
    for name, data in zip(NAMES, (CONFIG, TOKENIZER), strict=True):
        with pytest.raises(IntegrityError, match=rf"^{name} has the hash {kind}-") as caught:
            await Integrity({**record.hashes, name: wrong}).verify(NAMES, files)
        error = caught.value
        assert (error.url, error.expected, error.actual) == (name, wrong, sri(kind, data))
        assert wrong in str(error)


async def test_a_warning_is_enough_if_the_record_says_so(
    files: LocalFiles, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = sri("sha256", b"another")
    with caplog.at_level(logging.WARNING, "webllm"):
        await Integrity({"tokenizer.json": wrong}, is_error=False).verify(NAMES, files)
    assert wrong in caplog.text


async def test_a_file_that_the_model_lacks_is_refused(files: LocalFiles) -> None:
    with pytest.raises(ConfigError, match=r"hash of 'tokenizer.model'.*mlc-chat-config.json, tok"):
        await Integrity({"tokenizer.model": sri("sha256", b"")}).verify(NAMES, files)


@pytest.mark.parametrize(
    "text", ["", "md5-abc", "sha256-abc", f"sha256-{'a' * 64}", f"sha512-{'a' * 44}", "sha1-a="]
)
def test_what_is_no_hash_is_refused(text: str) -> None:
    for plain in ({"config": text}, {"tokenizer": {"x.json": text}}, {"model_lib": text}):
        with pytest.raises(ConfigError, match="give sha256-, sha384- or sha512-"):
            read_config({"model": "m", "model_id": "m", "integrity": plain}, ModelRecord)


async def test_what_a_record_promises_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    async def fail(*arguments: object) -> None:
        asked.extend(arguments)
        raise ConfigError("enough")

    monkeypatch.setattr(loading, "open_model", fail)
    config = sri("sha256", CONFIG)
    record = ModelRecord(
        model="hf:o/r",
        model_id="m",
        integrity=ModelIntegrity(config=config, model_lib=config, on_failure="warn"),
    )
    app = AppConfig(model_list=(record,), hub_url="https://mirror.example", hub_token="t")
    with pytest.raises(ConfigError, match="enough"):
        await loading.load_model(
            record, ChatOptions(), MLCEngineConfig(app_config=app, device="cpu"), NATIVE
        )
    assert asked[0] == "hf:o/r"
    assert asked[3:] == [
        HubAccess("https://mirror.example", "t"),
        Integrity({"mlc-chat-config.json": config}, is_error=False),
    ]


async def test_a_package_of_several_tasks_is_refused_by_name() -> None:
    record = ModelRecord(model="hf:o/r", model_id="m", model_manifest="mlc-model-manifest.json")
    with pytest.raises(UnsupportedModelError, match=r"model_manifest 'mlc-model-manifest\.json'"):
        await loading.load_model(record, ChatOptions(), MLCEngineConfig(device="cpu"), NATIVE)


HUB = "https://huggingface.co"


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("hf:o/r/m.gguf", "o/r/resolve/main/m.gguf"),
        ("hf:o/r@a%2Fb/m.gguf", "o/r/resolve/a%2Fb/m.gguf"),
        (f"{HUB}/o/r/resolve/main/m.gguf?x=1", "o/r/resolve/main/m.gguf?x=1"),
    ],
)
def test_a_token_goes_to_the_hub_alone(source: str, path: str) -> None:
    place = parse_source(source)
    for url in (HUB, "https://mirror.example/hub", "https://mirror.example/hub/"):
        file = HubAccess(url, "secret").locate(place)  # type: ignore[arg-type]
        assert (file.url, file.headers) == (
            f"{url.rstrip('/')}/{path}",
            {"Authorization": "Bearer secret"},
        )
        assert "secret" not in repr(file)
        assert not HubAccess(url).locate(place).headers  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example/m.gguf",
        "https://huggingface.co.evil.example/o/r/m.gguf",
        "https://evil.example/https://huggingface.co/m.gguf",
        "https://mirror.example/m.gguf",
    ],
)
def test_no_other_origin_gets_a_token(url: str) -> None:
    place = parse_source(url)
    for hub in (HubAccess(token="secret"), HubAccess("https://mirror.example/hub", "secret")):
        file = hub.locate(place)  # type: ignore[arg-type]
        assert (file.url, file.headers) == (url, {})


def test_a_token_is_shown_nowhere() -> None:
    app = AppConfig(model_list=(), hub_token="secret", hub_url="https://mirror.example")
    for shown in (
        repr(app),
        repr(MLCEngineConfig(app_config=app)),
        repr(HubAccess(token="secret")),
    ):
        assert "secret" not in shown
    assert "hub_url='https://mirror.example'" in repr(app)
    with pytest.raises(ConfigError, match="not encrypted"):
        HubAccess("http://mirror.example")


async def test_mirrors_and_tokens_are_for_browsers() -> None:
    with pytest.raises(ConfigError, match="set HF_ENDPOINT, and log in"):
        await open_model("hf:o/r/m.gguf", None, None, HubAccess(token="secret"))
