"""Writes what TypeScript must know of Python into src/client/: python client_types.py

messages.ts and api.ts are the types of the worker's messages, of requests and of responses;
error_classes.ts is the tree of errors, prebuilt.json the catalogue of models.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from webllm import errors
from webllm.api.chat_completion import ChatCompletion, ChatCompletionChunk
from webllm.api.completion import Completion
from webllm.api.embedding import CreateEmbeddingResponse
from webllm.api.requests import ChatCompletionRequest, CompletionRequest, EmbeddingRequest
from webllm.config import LogLevel, prebuilt_app_config
from webllm.workers.messages import AnyAnswer, AnyRequest

CLIENT = Path(__file__).parent / "src" / "client"
API = [
    *(ChatCompletionRequest, CompletionRequest, EmbeddingRequest),
    *(ChatCompletion, ChatCompletionChunk, Completion, CreateEmbeddingResponse),
]
MESSAGES = {"AnyRequest": AnyRequest, "AnyAnswer": AnyAnswer, "LogLevel": LogLevel}
LINE = 100  # prettier's

Schema = dict[str, Any]


def files() -> dict[str, str]:
    """The text of each file."""
    return {
        "messages.ts": _module("workers/messages.py", MESSAGES, []),
        "api.ts": _module("api/", {}, API),
        "error_classes.ts": _error_classes(),
        "prebuilt.json": json.dumps(msgspec.to_builtins(prebuilt_app_config()), indent=2) + "\n",
    }


def _error_classes() -> str:
    lines = [
        "// Made by client_types.py from src/webllm/errors.py; do not edit.\n",
        'import { WebLLMError } from "./error_base";\n',
        *(f"export class {_extended(kind)} {{}}" for kind in _below(errors.WebLLMError)),
    ]
    return "\n".join(lines) + "\n"


def _extended(kind: type) -> str:
    return f"{kind.__name__} extends {kind.__bases__[0].__name__}"


def _below(kind: type) -> Iterator[type]:
    """Parents before their children."""
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from _below(child)


def _module(source: str, aliases: dict[str, Any], structs: list[type]) -> str:
    kinds = [*aliases.values(), *structs]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="{name}")
    named = zip(aliases, schemas, strict=False)
    parts = [
        f"// Made by client_types.py from src/webllm/{source}; do not edit.\n",
        *(_interface(name, schema) for name, schema in components.items()),
        *(_alias(name, _options(schema)) for name, schema in named),
    ]
    return "\n".join(parts)


def _interface(name: str, schema: Schema) -> str:
    required = schema["required"]
    fields = [
        f"  {field}{'' if field in required else '?'}: {_type(kind)};"
        for field, kind in schema["properties"].items()
    ]
    return "\n".join([*_comment(schema), f"export interface {name} {{", *fields, "}\n"])


def _comment(schema: Schema) -> list[str]:
    if "description" not in schema:
        return []
    lines = inspect.cleandoc(schema["description"]).splitlines()
    if len(lines) == 1:
        return [f"/** {lines[0]} */"]
    return ["/**", *(f" * {line}".rstrip() for line in lines), " */"]


def _alias(name: str, options: list[str]) -> str:
    line = f"export type {name} = {' | '.join(options)};\n"
    if len(line) <= LINE:
        return line
    return "\n".join([f"export type {name} =", *(f"  | {option}" for option in options)]) + ";\n"


def _type(schema: Schema) -> str:
    return " | ".join(_options(schema))


def _options(schema: Schema) -> list[str]:
    """The types of which a value has one."""
    match schema:
        case {"anyOf": options}:
            return [each for option in options for each in _options(option)]
        case {"$ref": name}:
            return [name]
        case {"enum": values}:
            return [json.dumps(value) for value in values]
        case {"type": "array", "items": {"anyOf": _} | {"enum": [_, _, *_]} as items}:
            return [f"({_type(items)})[]"]
        case {"type": "array", "items": items}:
            return [f"{_type(items)}[]"]
        case {"type": "object"}:
            return [f"Record<string, {_type(schema.get('additionalProperties', {}))}>"]
        case {"type": "integer"}:
            return ["number"]
        case {"type": "string" | "number" | "boolean" | "null" as name}:
            return [name]
        case _:
            return ["unknown"]


if __name__ == "__main__":
    for name, text in files().items():
        (CLIENT / name).write_text(text)
