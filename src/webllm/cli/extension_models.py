"""The models of a Chrome extension: files in its package, or fetched by it.

Chrome's store takes no extension that fetches code. The chat template in a model file is a program,
so a model that is fetched gets a built-in template that renders the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast
from urllib.parse import urlsplit

import msgspec

from webllm.artifacts.checkpoint import GGUFTokenizer
from webllm.artifacts.local_files import open_paths
from webllm.artifacts.local_folder import ModelPaths
from webllm.artifacts.progress import ProgressCallback
from webllm.artifacts.resolve import ensure_model
from webllm.artifacts.source import HTTPSource, HubSource, parse_source
from webllm.artifacts.store import DirectoryStore
from webllm.cli.bundle import hashed
from webllm.cli.site_models import SiteModel, site_models
from webllm.config import AppConfig, BuiltinTemplate, ChatOptions, ModelRecord, prebuilt_app_config
from webllm.errors import ConfigError
from webllm.text.builtin_templates import equal_builtin
from webllm.text.gguf_tokenizer import tokenizer_from_gguf
from webllm.text.model_template import template_from_gguf
from webllm.webllm_list import require_supported

# Hugging Face redirects to hosts of these domains.
_HUB_HOSTS = (
    "https://huggingface.co",
    "https://*.huggingface.co",
    "https://*.hf.co",
    "https://*.xethub.hf.co",
)
_WAY_OUT = "put it into the package with --include-models"


async def included_models(names: Sequence[str], on_progress: ProgressCallback) -> list[SiteModel]:
    """Returns the models as files of the package; raises what `site_models` raises."""
    return [hashed(model) for model in await site_models(names, on_progress)]


async def fetched_models(names: Sequence[str], on_progress: ProgressCallback) -> list[SiteModel]:
    """Returns the models with the sources that the extension fetches them from.

    Downloads those that are not on this disk, to read their templates. The records have the size
    and the hash. Raises what `ensure_model` raises, and ConfigError for a source that an
    extension cannot fetch and for a model without a built-in template.
    """
    known = prebuilt_app_config()
    records = [known.find(name) for name in names]
    for record in records:
        require_supported(record)
    sources = [_fetchable(record) for record in records]
    ids = [record.model_id for record in records]
    for model_id in ids:
        if ids.count(model_id) > 1:
            raise ConfigError(f"{model_id!r} is given twice, or named like another; give it once")
    store = DirectoryStore()
    models = []
    for record, source in zip(records, sources, strict=True):
        found = await ensure_model(source, store, on_progress)
        model = SiteModel(record, found.paths)
        there = msgspec.structs.replace(
            record,
            model=str(replace(source, sha256=None)),
            size_bytes=model.nbytes,
            sha256=source.sha256,
            overrides=_without_file_template(record, found),
        )
        model = SiteModel(there, found.paths)
        models.append(model if len(found.paths) > 1 else hashed(model))
    return models


def model_hosts(records: Sequence[ModelRecord]) -> list[str]:
    """Returns the policy's sources for all that the records are fetched from, each once."""
    hosts: list[str] = []
    for record in records:
        source = parse_source(record.source)
        if isinstance(source, HubSource):
            hosts += _HUB_HOSTS
        elif isinstance(source, HTTPSource):
            hosts.append(_origin(source))
    return list(dict.fromkeys(hosts))


def remarks(records: Sequence[ModelRecord]) -> list[str]:
    """Returns what whoever publishes the extension has to know of the sources."""
    texts = []
    for record in records:
        source = parse_source(record.source)
        if isinstance(source, HTTPSource):
            texts.append(
                f"{record.model_id}: the extension may fetch from {_origin(source)} only; if that "
                "redirects to other hosts, name them with --model-host"
            )
        elif isinstance(source, HubSource) and source.revision is None:
            texts.append(
                f"{record.model_id}: the extension takes no other version of the model; name the "
                f"commit, {replace(source, revision='COMMIT', sha256=None)}, so that it stays there"
            )
    return texts


def catalogue(models: Sequence[SiteModel], are_included: bool) -> bytes:
    """Returns the contents of models.json; files of the package need no second copy."""
    records = tuple(model.record for model in models)
    config = AppConfig(model_list=records, cache_backend="none" if are_included else None)
    return msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n"


def _fetchable(record: ModelRecord) -> HTTPSource | HubSource:
    source = parse_source(record.source)
    if isinstance(source, HTTPSource | HubSource):
        return source
    raise ConfigError(
        f"{record.model_id} comes from {record.model}, which an extension cannot fetch; "
        f"{_WAY_OUT}, or name a model of https://… or hf:owner/repo/file"
    )


def _origin(source: HTTPSource) -> str:
    parts = urlsplit(source.url)
    return f"{parts.scheme}://{parts.netloc}"


def _without_file_template(record: ModelRecord, found: ModelPaths) -> ChatOptions:
    options = record.overrides or ChatOptions()
    if options.conv_template is not None or options.builtin_template is not None:
        return options
    with open_paths(found) as checkpoint:
        if not isinstance(checkpoint.tokenizer, GGUFTokenizer):
            raise ConfigError(
                f"{record.model_id} is no GGUF file, so its chat template cannot be compared with "
                f"the built-in ones; {_WAY_OUT}, or give its record a conv_template in the file of "
                "WEBLLM_MODELS"
            )
        metadata = checkpoint.tokenizer.metadata
        template = template_from_gguf(metadata, tokenizer_from_gguf(metadata))
    if template is None:
        raise ConfigError(
            f"{record.model_id} has no chat template; name another model, or give its record a "
            "conv_template in the file of WEBLLM_MODELS"
        )
    name = equal_builtin(template)
    if name is None:
        raise ConfigError(
            f"the chat template of {record.model_id} renders unlike all built-in ones, and an "
            f"extension may not run one that it has fetched; {_WAY_OUT}, which makes its template "
            "a part of it, or give its record a conv_template in the file of WEBLLM_MODELS"
        )
    return ChatOptions(builtin_template=cast(BuiltinTemplate, name)).over(options)
