"""Writes the TypeScript types of Python's structs into src/client/: python client_types.py

messages.ts and api.ts are the types of the worker's messages, of requests and of responses;
error_classes.ts is the tree of errors, prebuilt.json the catalogue of models and
unsupported_fields.json the fields of the references that are refused.
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
from webllm.api.requests import (
    UNSUPPORTED_CHAT_FIELDS,
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingRequest,
)
from webllm.config import LogLevel, prebuilt_app_config
from webllm.workers.messages import AnyAnswer, AnyRequest

CLIENT = Path(__file__).parent / "src" / "client"
API = [
    *(ChatCompletionRequest, CompletionRequest, EmbeddingRequest),
    *(ChatCompletion, ChatCompletionChunk, Completion, CreateEmbeddingResponse),
]
MESSAGES = {"AnyRequest": AnyRequest, "AnyAnswer": AnyAnswer, "LogLevel": LogLevel}
LINE = 100  # prettier's
# What one struct is in Python, and several types in WebLLM: written by hand, in this file.
WRITTEN = {
    "ChatCompletionContentPart": "content_parts",
    "ChatCompletionMessageParam": "message_params",
    "ConvTemplateConfig": "conv_template",
}
# Fields whose type is one of those.
FIELDS = {
    ("ChatOptions", "conv_template"): "ConvTemplateConfig | Record<string, unknown> | null",
    ("ChatOptions", "conv_config"): "Partial<ConvTemplateConfig> | null",
}
# Requests, by whether their answer is a stream: WebLLM's names for them.
UNIONS = {
    "ChatCompletionRequest": "ChatCompletionRequest",
    "CompletionRequest": "CompletionCreateParams",
}
# WebLLM's and OpenAI's names of types inside of types.
INNER = {
    "ChatCompletion": {"Choice": "Choice"},
    "ChatCompletionChunk": {"Choice": "ChunkChoice"},
    "ChatCompletionMessageToolCall": {"Function": "FunctionCall"},
    "ChatCompletionNamedToolChoice": {"Function": "NamedFunction"},
    "CreateEmbeddingResponse": {"Usage": "EmbeddingUsage"},
}

Schema = dict[str, Any]


def files() -> dict[str, str]:
    """The text of each file."""
    return {
        "messages.ts": _module("workers/messages.py", MESSAGES, []),
        "api.ts": _module("api/", {}, API),
        "error_classes.ts": _error_classes(),
        "prebuilt.json": json.dumps(msgspec.to_builtins(prebuilt_app_config()), indent=2) + "\n",
        "unsupported_fields.json": json.dumps([*UNSUPPORTED_CHAT_FIELDS], indent=2) + "\n",
    }


def _error_classes() -> str:
    lines = [
        "// Made by client_types.py from src/webllm/errors.py; do not edit.\n",
        'import { WebLLMError, integrityInfo } from "./error_base";',
        'import type { ErrorInfo } from "./messages";\n',
        *(_error_class(kind) for kind in _below(errors.WebLLMError)),
    ]
    return "\n".join(lines) + "\n"


def _error_class(kind: type[errors.WebLLMError]) -> str:
    head = f"export class {kind.__name__} extends {kind.__bases__[0].__name__}"
    fields = [name for name in vars(kind).get("fields", ()) if name != "field"]  # the base's
    if not fields:
        return f"{head} {{}}"
    _, *others = fields
    given = ", ".join(f"{name}: string" for name in fields)
    rest = ", ".join(f'{name} = ""' for name in others)
    made = f"{kind.__name__.removesuffix('Error').lower()}Info(given, {', '.join(others)})"
    lines = [
        f"{head} {{",
        *(f"  readonly {name}: string;" for name in fields),
        "",
        "  /** As in WebLLM; or of what a worker says. */",
        f"  constructor({given});",
        "  constructor(info: ErrorInfo);",
        f"  constructor(given: ErrorInfo | string, {rest}) {{",
        f'    const info = typeof given === "string" ? {made} : given;',
        "    super(info);",
        *(f'    this.{name} = info.{name} ?? "";' for name in fields),
        "  }",
        "}",
    ]
    return "\n".join(lines)


def _below(kind: type[errors.WebLLMError]) -> Iterator[type[errors.WebLLMError]]:
    """Parents before their children."""
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from _below(child)


def _module(source: str, aliases: dict[str, Any], structs: list[type]) -> str:
    kinds = [*aliases.values(), *structs]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="{name}")
    named = zip(aliases, schemas, strict=False)
    written = [f'import type {{ {name} }} from "./{WRITTEN[name]}";' for name in _used(components)]
    parts = [
        f"// Made by client_types.py from src/webllm/{source}; do not edit.\n",
        *(["\n".join(written) + "\n"] if written else []),
        *(_struct(name, schema) for name, schema in components.items() if name not in WRITTEN),
        *(_alias(name, _options(schema)) for name, schema in named),
    ]
    return "\n".join(parts)


def _used(components: dict[str, Schema]) -> list[str]:
    """The types of WRITTEN that a module has to import."""
    made = {name: schema for name, schema in components.items() if name not in WRITTEN}
    kinds = [kind for (name, _), kind in FIELDS.items() if name in made]
    fields = " ".join([*kinds, json.dumps(made)])
    return [each for each in WRITTEN if each in fields]


def _struct(name: str, schema: Schema) -> str:
    if name in UNIONS:
        return _request(name, UNIONS[name], schema)
    inner = [
        f'  export type {each} = import("./api").{kind};'
        for each, kind in INNER.get(name, {}).items()
    ]
    if not inner:
        return _interface(name, schema)
    space = "\n".join([f"export declare namespace {name} {{", *inner, "}\n"])
    return f"{_interface(name, schema)}\n{space}"


def _request(name: str, webllms: str, schema: Schema) -> str:
    """By whether its answer is a stream."""
    base = f"{webllms}Base"
    return "\n".join(
        [
            _interface(base, schema),
            f"export interface {webllms}NonStreaming extends {base} {{",
            "  stream?: false | null;",
            "}\n",
            f"export interface {webllms}Streaming extends {base} {{",
            "  stream: true;",
            "}\n",
            _alias(name, [f"{webllms}NonStreaming", f"{webllms}Streaming"]),
        ]
    )


def _interface(name: str, schema: Schema) -> str:
    required = schema["required"]
    fields = [
        f"  {field}{'' if field in required else '?'}: {FIELDS.get((name, field)) or _type(kind)};"
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
    """As prettier breaks it: on one line, after the equals sign, or an option on each line."""
    head, body = f"export type {name} =", " | ".join(options)
    if len(f"{head} {body};") <= LINE:
        return f"{head} {body};\n"
    if len(f"  {body};") <= LINE:
        return f"{head}\n  {body};\n"
    return "\n".join([head, *(f"  | {option}" for option in options)]) + ";\n"


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
