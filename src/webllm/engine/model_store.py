"""What is kept of models: WebLLM's functions of that name. A model is one file, all in one.

Each takes the id of a model of the catalogue (or a source) and that catalogue, which also says
where a browser keeps models; None: the built-in one. A mapping in WebLLM's spelling will do. Each
raises ModelNotFoundError for an id that is not in the catalogue.
"""

from __future__ import annotations

from typing import Any

from webllm.artifacts import auto
from webllm.config import AppConfig, ModelRecord, prebuilt_app_config, read_config


async def has_model_in_cache(model_id: str, app_config: AppConfig | None = None) -> bool:
    """Whether the model loads without fetching anything.

    Files that are read where they lie (a path of this disk, a picked file) are not kept: False.
    """
    config = _catalogue(app_config)
    return await auto.has_model(config.find(model_id).source, config.cache_backend)


async def delete_model_all_info_in_cache(
    model_id: str, app_config: AppConfig | None = None
) -> None:
    """Deletes the model, also what came of one that is not whole; harmless if there is nothing.

    Raises ArtifactError while it is fetched, or where it is in use (Windows).
    """
    config = _catalogue(app_config)
    await auto.delete_model(config.find(model_id).source, config.cache_backend)


async def delete_model_in_cache(model_id: str, app_config: AppConfig | None = None) -> None:
    """As `delete_model_all_info_in_cache`: weights, tokenizer and options are one file."""
    await delete_model_all_info_in_cache(model_id, app_config)


async def delete_chat_config_in_cache(model_id: str, app_config: AppConfig | None = None) -> None:
    """Deletes nothing: a model's chat configuration is in its file, and goes with that."""
    _catalogue(app_config).find(model_id)


async def model_from_file(file: Any, model_id: str | None = None) -> ModelRecord:
    """A record of a file that the user picked in a page, to be read where it lies.

    `file` is a JavaScript File or FileSystemFileHandle; `model_id` by default the file's name. The
    record works in every worker of the site while this page is open, and nothing is copied.
    """
    source = await auto.offer_file(file)
    name = source.rpartition("/")[2].removesuffix(".gguf")
    return ModelRecord(model=source, model_id=model_id or name)


def _catalogue(app_config: AppConfig | None) -> AppConfig:
    if app_config is None or isinstance(app_config, AppConfig):
        return app_config or prebuilt_app_config()
    return read_config(app_config, AppConfig)
