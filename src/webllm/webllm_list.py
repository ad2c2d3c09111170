"""WebLLM's list of models: the facts of webllm_list.json as records, and which of them run here.

js/webllm_list.mjs makes that file from the npm package, whose `prebuiltAppConfig` it is.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, NamedTuple

import msgspec

from webllm.errors import UnsupportedModelError
from webllm.model_record import ChatOptions, ModelRecord

_HUB = "https://huggingface.co/mlc-ai/"
_SOURCE = r"(?:https://huggingface\.co/|hf:)mlc-ai/([\w.-]+)"  # compiled when it is used
_NOT_YET = "its architecture does not run yet"
_IMAGES = "models that see images do not run yet"

# MLC's architectures, as `model_type` of mlc-chat-config.json; a text says why one does not run.
ARCHITECTURES: dict[str, str | None] = {
    "llama": None,
    "mistral": None,  # computed as llama
    "qwen2": None,
    "qwen3": None,
    "gemma3_text": None,
    "gemma": _NOT_YET,
    "gemma2": _NOT_YET,
    "gemma4": _IMAGES,
    "phi": _NOT_YET,
    "phi3": _NOT_YET,
    "phi3_v": _IMAGES,
    "ministral3": _NOT_YET,
    "olmo2": _NOT_YET,
    "qwen3_5": _NOT_YET,
    "stablelm": _NOT_YET,
    "gpt_neox": _NOT_YET,
    "bert": "embedding models do not run yet",
}
# MLC's quantizations, the preferred first: a model is smaller in it than in the next. A text says
# why one is not read.
QUANTIZATIONS: dict[str, str | None] = {
    "q4f16_1": None,
    "q4f32_1": None,
    "q0f16": None,
    "q0f32": None,
    "q3f16_1": "weights of 3 bits cannot be read",
}


class Name(NamedTuple):
    """The parts of an id such as "Llama-3.1-8B-Instruct-q4f16_1-MLC-1k"."""

    model: str  # "Llama-3.1-8B-Instruct"
    quantization: str  # "q4f16_1"
    form: str  # "1k": the same weights with a smaller context window; else ""

    @property
    def preference(self) -> int:
        """Sorts the quantizations of a model, the preferred one first."""
        return list(QUANTIZATIONS).index(self.quantization)


_ID = rf"(.+)-({'|'.join(QUANTIZATIONS)})-MLC(?:-(\w+))?"


def parse_name(model_id: str) -> Name | None:
    """Returns the parts of an id in WebLLM's form; None for any other id."""
    found = re.fullmatch(_ID, model_id)
    return found and Name(found[1], found[2], found[3] or "")


class _Row(msgspec.Struct, array_like=True):
    model_id: str
    architecture: str
    vram_required_mb: float
    low_resource_required: bool
    context_window_size: int | None
    few: dict[str, Any] = {}  # fields that few records have


class _File(msgspec.Struct):
    models: list[_Row]


@cache
def webllm_models() -> tuple[ModelRecord, ...]:
    """Returns WebLLM's list, in its order, without the kernels (`model_lib`) of each model."""
    return tuple(_record(row) for row in _rows())


@cache
def _rows() -> list[_Row]:
    from pkgutil import get_data  # works in an archive too, and imports less than importlib does

    text = get_data("webllm", "webllm_list.json")
    assert text is not None
    return msgspec.json.decode(text, type=_File).models


def _repository(model_id: str) -> str:
    return re.sub("-MLC-.*", "-MLC", model_id)  # "…-MLC-1k" has the weights of "…-MLC"


def _record(row: _Row) -> ModelRecord:
    few = dict(row.few)
    overrides = {"context_window_size": row.context_window_size, **few.pop("overrides", {})}
    return ModelRecord(
        model=_HUB + _repository(row.model_id),
        model_id=row.model_id,
        vram_required_mb=row.vram_required_mb,
        low_resource_required=row.low_resource_required,
        overrides=ChatOptions(**overrides) if any(overrides.values()) else None,
        **{**few, "required_features": tuple(few.get("required_features", ()))},
    )


@cache
def _architectures() -> dict[str, str]:
    """By repository; several ids may share one."""
    return {_repository(row.model_id): row.architecture for row in _rows()}


def facts(record: ModelRecord) -> tuple[str, str] | None:
    """Returns the architecture and the quantization of a model of WebLLM's list, whatever its id.

    None for a record with another source.
    """
    source = re.match(_SOURCE, record.model)
    architecture = _architectures().get(source[1]) if source else None
    if source is None or architecture is None:
        return None
    name = parse_name(source[1])
    assert name is not None
    return architecture, name.quantization


def why_unsupported(record: ModelRecord) -> str | None:
    """Returns why a model of WebLLM's list does not run; None if it does, or is not of the list."""
    known = facts(record)
    if known is None:
        return None
    architecture, quantization = known
    if reason := ARCHITECTURES[architecture]:
        return f"{reason} ({architecture})"
    return QUANTIZATIONS[quantization]


def require_supported(record: ModelRecord) -> None:
    """Raises UnsupportedModelError for a model of WebLLM's list that does not run."""
    if reason := why_unsupported(record):
        raise UnsupportedModelError(
            f"{record.model_id} cannot be loaded: {reason}; `webllm models --all` lists the models "
            "that can"
        )
