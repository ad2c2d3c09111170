"""The files that a model needs, in each format, found from the one that names it: its entry.

    model.gguf                               that file
    model-00001-of-00003.gguf                every part of a split file; any of them may be named
    mlc-chat-config.json                     MLC's weights: the shards of tensor-cache.json
    model.safetensors, model.safetensors.index.json
                                             Hugging Face's: one file, or the shards of an index

Knows a `Folder` only, so it is the same for a disk, a site and a repository.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from typing import Any

from webllm.artifacts.files import FileSpec, Folder
from webllm.artifacts.json_files import json_object
from webllm.errors import CheckpointError, ModelNotFoundError

MLC_CONFIG = "mlc-chat-config.json"
SAFETENSORS, SAFETENSORS_INDEX = "model.safetensors", "model.safetensors.index.json"
SINGLE_FILE = "model.gguf"  # the name of a file whose own name says nothing

TENSOR_CACHES = ("tensor-cache.json", "ndarray-cache.json")  # of today, and of 2024
_TOKENIZERS = ("tokenizer.json", "tokenizer.model")  # WebLLM needs no others of `tokenizer_files`
_SPLIT = re.compile(r"(.*)-([0-9]{5})-of-([0-9]{5})(\.gguf)")
_MD5 = re.compile(r"[0-9a-fA-F]{32}")
_HINT = (
    f"name a folder with {MLC_CONFIG}, {SAFETENSORS} (or its index) or a .gguf file; "
    "a repository of Hugging Face is hf:owner/repo"
)
_MAX_PARTS = 4096  # of a split file


def is_entry(name: str) -> bool:
    """Returns whether a file's name says that a model begins there."""
    base = posixpath.basename(name)
    return base.endswith((".gguf", ".safetensors")) or base in (MLC_CONFIG, SAFETENSORS_INDEX)


def is_single(name: str) -> bool:
    """Returns whether a model that begins at this entry is one file."""
    return name.endswith(".gguf") and len(split_parts(name)) == 1


def split_parts(name: str) -> list[str]:
    """Returns the names of all parts of a split GGUF file; of any other file its own name."""
    match = _SPLIT.fullmatch(name)
    if match is None or not 1 <= int(match[2]) <= int(match[3]) <= _MAX_PARTS:
        return [name]
    return [f"{match[1]}-{i:05}-of-{match[3]}{match[4]}" for i in range(1, int(match[3]) + 1)]


async def find_entry(folder: Folder) -> str:
    """Returns the entry of the model in `folder`.

    Raises ModelNotFoundError if there is none, or if there are several .gguf files.
    """
    for name in (MLC_CONFIG, SAFETENSORS, SAFETENSORS_INDEX, SINGLE_FILE):
        if await folder.find(name):
            return name
    names = await folder.names()
    if names is None:
        raise ModelNotFoundError(f"{folder} has no model that we know; {_HINT}")
    return the_gguf(str(folder), names)


def the_gguf(place: str, names: Sequence[str]) -> str:
    """Returns the only GGUF file of `names`, or the first part of it.

    Raises ModelNotFoundError if there is none, or several.
    """
    found = gguf_files(names)
    if len(found) == 1:
        return found[0]
    if not found:
        raise ModelNotFoundError(f"{place} contains no model that we know; {_HINT}")
    raise ModelNotFoundError(
        f"{place} contains several .gguf files: {', '.join(found)}; name one of them"
    )


def quantized(place: str, names: Sequence[str], quantization: str) -> str:
    """Returns the only GGUF file of `names` with a quantization, or the first part of it.

    Raises ModelNotFoundError if there is none, or several; it lists what there is.
    """
    every = gguf_files(names)
    pattern = re.compile(rf"(?<![A-Za-z0-9]){re.escape(quantization)}(?![A-Za-z0-9_])", re.I)
    found = [each for each in every if pattern.search(posixpath.basename(each))]
    if len(found) == 1:
        return found[0]
    what = "several .gguf files" if found else "no .gguf file"
    known = ", ".join(found or every) or "none"
    raise ModelNotFoundError(
        f"{place} contains {what} with the quantization {quantization!r}; there are: {known}"
    )


def gguf_files(names: Sequence[str]) -> list[str]:
    """Returns the GGUF models among `names`, of a split one the first part.

    The projectors of vision models (mmproj) are no models.
    """
    models = [
        split_parts(each)[0]
        for each in names
        if each.endswith(".gguf") and not posixpath.basename(each).startswith("mmproj")
    ]
    return list(dict.fromkeys(models))


async def needed(entry: str, folder: Folder) -> list[FileSpec]:
    """Returns the files of the model that begins at `entry`, sizes and hashes as far as known.

    Raises ModelNotFoundError for a file that is missing, CheckpointError for a document that is
    malformed.
    """
    if entry == MLC_CONFIG:
        specs = await _mlc(folder)
    elif entry == SAFETENSORS_INDEX or entry.endswith(".safetensors"):
        specs = await _safetensors(entry, folder)
    else:
        specs = [FileSpec(name) for name in split_parts(entry)]
    has_list = await folder.names() is not None
    found = [
        spec if spec.size is not None and not has_list else await _found(spec, folder)
        for spec in specs
    ]
    return [spec for spec in found if spec is not None]


async def _found(spec: FileSpec, folder: Folder) -> FileSpec | None:
    """Completes `spec` by what the folder knows; None for an optional file that is not there."""
    there = await folder.find(spec.name)
    if there is None:
        if spec.is_optional:
            return None
        raise ModelNotFoundError(f"{spec.name} is missing in {folder}; the model is not complete")
    if None not in (spec.size, there.size) and spec.size != there.size:
        raise CheckpointError(
            f"{spec.name} in {folder} has {there.size} bytes, expected {spec.size}; fetch the "
            "model again from where it is whole"
        )
    return FileSpec(
        spec.name,
        there.size if spec.size is None else spec.size,
        there.sha256,
        spec.md5,
        spec.is_optional,
    )


async def _mlc(folder: Folder) -> list[FileSpec]:
    config = await _document(folder, MLC_CONFIG)
    for cache in TENSOR_CACHES:
        if await folder.find(cache):
            break
    else:
        raise ModelNotFoundError(
            f"{TENSOR_CACHES[0]} is missing in {folder}; the model is not complete"
        )
    records = (await _document(folder, cache)).get("records")
    if not isinstance(records, list) or not records:
        raise CheckpointError(f"{cache} in {folder} lists no records; fetch the model again")
    shards = [_shard(record, f"{cache} in {folder}") for record in records]
    tokenizer = config.get("tokenizer_files", [])
    if not isinstance(tokenizer, list):
        raise CheckpointError(
            f"tokenizer_files of {MLC_CONFIG} in {folder} is {tokenizer!r}, not a list of names"
        )
    place = f"{MLC_CONFIG} in {folder}"
    listed = dict.fromkeys(_checked(each, place) for each in tokenizer)
    listed["tokenizer_config.json"] = None
    return [
        FileSpec(MLC_CONFIG),
        FileSpec(cache),
        *(FileSpec(name, is_optional=name not in _TOKENIZERS) for name in listed),
        *shards,
    ]


def _shard(record: Any, place: str) -> FileSpec:
    if not isinstance(record, dict):
        raise CheckpointError(f"{place} has the record {record!r}; fetch the model again")
    name, size, md5 = record.get("dataPath"), record.get("nbytes"), record.get("md5sum")
    if type(size) is not int or size <= 0:
        raise CheckpointError(f"{place} gives {name!r} the nbytes {size!r}; fetch the model again")
    if md5 is not None and not (isinstance(md5, str) and _MD5.fullmatch(md5)):
        raise CheckpointError(f"{place} gives {name!r} the md5sum {md5!r}; fetch the model again")
    return FileSpec(_checked(name, place), size, md5=md5 and md5.lower())


async def _safetensors(entry: str, folder: Folder) -> list[FileSpec]:
    weights = [entry]
    if entry == SAFETENSORS_INDEX:
        shards = (await _document(folder, entry)).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise CheckpointError(f"{entry} in {folder} has no weight_map; fetch the model again")
        weights += sorted({_checked(each, f"{entry} in {folder}") for each in shards.values()})
    has_json = await folder.find("tokenizer.json") is not None
    has_model = not has_json and await folder.find("tokenizer.model") is not None
    return [
        FileSpec("config.json"),
        FileSpec("tokenizer.model" if has_model else "tokenizer.json"),
        FileSpec("tokenizer_config.json", is_optional=True),
        FileSpec("generation_config.json", is_optional=True),
        FileSpec("chat_template.jinja", is_optional=True),
        *map(FileSpec, weights),
    ]


async def _document(folder: Folder, name: str) -> dict[str, Any]:
    data = await folder.load(name)
    if data is None:
        raise ModelNotFoundError(f"{name} is missing in {folder}; the model is not complete")
    return json_object(data, f"{name} in {folder}")


def _checked(name: object, place: str) -> str:
    """Returns a name that a document gives, if it stays in the folder."""
    if (
        not isinstance(name, str)
        or not name.isprintable()
        or re.search(r"[\\:?#]|^/", name)
        or {"", ".", ".."} & set(name.split("/"))
    ):
        raise CheckpointError(f"{place} names the file {name!r}, which is not a path in its folder")
    return name
