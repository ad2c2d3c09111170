"""WebLLM's functions for stored models, with all of their files.

Each takes the id or source of a model, and the catalogue, which also names the store of a browser.
The catalogue may be a mapping in WebLLM's spelling; None means the built-in one. An id without its
quantization means the variant that this machine's device "auto" loads. Each raises
ModelNotFoundError for an id that is not in the catalogue.
"""

from __future__ import annotations

from typing import Any

from webllm.artifacts import auto
from webllm.config import AppConfig, ModelRecord, name_of, prebuilt_app_config, read_config
from webllm.engine.device_fit import chosen_variant


async def has_model_in_cache(model_id: str, app_config: AppConfig | None = None) -> bool:
    """Whether the model loads without fetching anything.

    Returns False for files that are read in place: a local path, a picked file.
    """
    config = _catalogue(app_config)
    record = await chosen_variant(config.find(model_id), config)
    return await auto.has_model(record.source, config.cache_backend)


async def delete_model_all_info_in_cache(
    model_id: str, app_config: AppConfig | None = None
) -> None:
    """Deletes the model, or the part that was fetched; does nothing if there is none.

    Raises ArtifactError while it is fetched, or on Windows while it is in use.
    """
    config = _catalogue(app_config)
    record = await chosen_variant(config.find(model_id), config)
    await auto.delete_model(record.source, config.cache_backend)


async def delete_model_in_cache(model_id: str, app_config: AppConfig | None = None) -> None:
    """Same as `delete_model_all_info_in_cache`: weights, tokenizer and options are one model."""
    await delete_model_all_info_in_cache(model_id, app_config)


async def delete_chat_config_in_cache(model_id: str, app_config: AppConfig | None = None) -> None:
    """Deletes nothing: a model's chat configuration is part of the model."""
    _catalogue(app_config).find(model_id)


async def model_from_file(file: Any, model_id: str | None = None) -> ModelRecord:
    """Returns a record of a file that the user picked in a page; it is read in place, not copied.

    `file` is a JavaScript File or FileSystemFileHandle, or a list of them for a model of several
    files; `model_id` is the name of the first by default. The record works in every worker of the
    site while this page is open.
    """
    source = await auto.offer_files(file)
    return ModelRecord(model=source, model_id=model_id or name_of(source))


def _catalogue(app_config: AppConfig | None) -> AppConfig:
    if app_config is None or isinstance(app_config, AppConfig):
        return app_config or prebuilt_app_config()
    return read_config(app_config, AppConfig)
