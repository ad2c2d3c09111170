"""Which models fit a device, by their records alone: before anything is fetched.

A model fits if it runs here at all, if the GPU has the features that its record requires (a CPU
needs none), and if the memory that the record states is not more than the device is known to have.
The statement is WebLLM's estimate: too little memory only warns, and the backend decides.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from webllm.artifacts.auto import has_model
from webllm.backends.auto import DeviceFacts, device_facts
from webllm.config import AppConfig, MLCEngineConfig, ModelRecord
from webllm.errors import FeatureSupportError, ShaderF16SupportError
from webllm.host import Host
from webllm.webllm_list import parse_name, why_unsupported

_log = logging.getLogger(__name__)

F16 = "shader-f16"


async def require_fit(record: ModelRecord, config: MLCEngineConfig, host: Host) -> None:
    """Raises FeatureSupportError for a record that requires a feature which the GPU lacks.

    Warns if a model that has to be fetched takes more memory than the device is known to have;
    no browser tells that. Raises DeviceNotFoundError if there is no such device.
    """
    is_fetched = not host.is_browser and await _is_fetched(record, config.app_config)
    if not record.required_features and not is_fetched:
        return
    device = await device_facts(config.device)
    if missing := missing_features(record, device):
        raise _lacking(record, missing, device, config.app_config)
    if is_fetched and (problem := memory_problem(record, device)):
        _log.warning("%s may not fit: it %s", record.model_id, problem)


async def chosen_variant(
    record: ModelRecord, catalogue: AppConfig, device: str = "auto"
) -> ModelRecord:
    """Returns the variant for a device if the catalogue found `record` by an id without a
    quantization, and any other record as it is. It keeps that id.
    """
    variants = catalogue.choices(record)
    if len(variants) < 2:
        return record
    chosen = choose(variants, await device_facts(device))
    return msgspec.structs.replace(chosen, model_id=record.model_id)


def choose(variants: Sequence[ModelRecord], device: DeviceFacts) -> ModelRecord:
    """Returns the first of a model's `AppConfig.variants` that runs and has its features.

    A GPU without shader-f16 gets one that computes in f32, if there is one. If none runs, returns
    the first.
    """
    computes_f16 = device.features is None or F16 in device.features
    ordered = sorted(variants, key=lambda each: not computes_f16 and _is_f16(each))
    for record in ordered:
        if why_unsupported(record) is None and not missing_features(record, device):
            return record
    return variants[0]


def why_not(record: ModelRecord, device: DeviceFacts) -> str | None:
    """Returns why a model does not fit a device; None if it fits."""
    if reason := why_unsupported(record):
        return reason
    if missing := missing_features(record, device):
        return f"requires {', '.join(missing)}"
    return memory_problem(record, device)


def missing_features(record: ModelRecord, device: DeviceFacts) -> list[str]:
    """Returns the features that a record requires and a GPU lacks."""
    if device.features is None:
        return []
    return [name for name in record.required_features if name not in device.features]


def memory_problem(record: ModelRecord, device: DeviceFacts) -> str | None:
    """Returns why the device has too little memory; None if it has enough or that is not known."""
    needed, there = (record.vram_required_mb or 0) * 1e6, device.memory_bytes
    if there is None or needed <= there:
        return None
    return f"needs {needed / 1e9:.1f} GB of the {there / 1e9:.1f} GB of memory that there are"


def _is_f16(record: ModelRecord) -> bool:
    name = parse_name(record.model_id)
    return name is not None and "f16" in name.quantization


async def _is_fetched(record: ModelRecord, catalogue: AppConfig) -> bool:
    """Whether a load has to fetch a model whose memory is known."""
    if record.vram_required_mb is None:
        return False
    return not await has_model(record.source, catalogue.cache_backend)


def _lacking(
    record: ModelRecord, missing: list[str], device: DeviceFacts, catalogue: AppConfig
) -> FeatureSupportError:
    name = parse_name(record.model_id)
    variants = catalogue.variants(name.model) if name else []
    runs = [each.model_id for each in variants if not missing_features(each, device)]
    instead = f"load {runs[0]}, or run" if runs else "run"
    kind = ShaderF16SupportError if F16 in missing else FeatureSupportError
    return kind(
        f"{record.model_id} requires {', '.join(missing)}, which {device.name} lacks; {instead} it "
        "with device='cpu'"
    )
