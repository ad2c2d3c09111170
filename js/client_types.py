"""Writes the TypeScript types of Python's structs into src/client/: python client_types.py

messages.ts has the types of the worker's messages and the engine's methods that are one message;
api.ts has the types of requests and of responses; error_classes.ts is the tree of errors and
error_codes.ts the code and status of each; prebuilt.json is the catalogue of models, and
unsupported_fields.json lists the fields of the references that are refused. Of the catalogue,
src/page/models.json has the models that are not WebLLM's, and src/page/webllm_models.json those of
WebLLM's list that run.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import GenericAlias, NoneType, UnionType
from typing import Any, get_args

import msgspec

from webllm import errors
from webllm.api.base import ResponseStruct
from webllm.api.chat_completion import ChatCompletion, ChatCompletionChunk
from webllm.api.completion import Completion
from webllm.api.embedding import CreateEmbeddingResponse
from webllm.api.requests import (
    UNSUPPORTED_CHAT_FIELDS,
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingRequest,
)
from webllm.api.resumable import ResumableSession, ResumeResult
from webllm.api.stats import EngineStats
from webllm.config import LogLevel, ModelRecord, prebuilt_app_config
from webllm.webllm_list import webllm_models, why_unsupported
from webllm.workers.messages import KINDS, PROTOCOL, AnyReply, EngineMessages, KeepAlive, Kind

CLIENT = Path(__file__).parent / "src" / "client"
API = [
    *(ChatCompletionRequest, CompletionRequest, EmbeddingRequest),
    *(ChatCompletion, ChatCompletionChunk, Completion, CreateEmbeddingResponse, EngineStats),
    *(ResumableSession, ResumeResult),
]
LINE = 100  # prettier's
# What one struct is in Python, and several types in WebLLM: written by hand, in this file.
WRITTEN = {
    "ChatCompletionContentPart": "content_parts",
    "ChatCompletionMessageParam": "message_params",
    "ConvTemplateConfig": "conv_template",
    "Resumable": "resumable",
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
    webllms = webllm_models()
    ours = [each for each in prebuilt_app_config().model_list if each not in webllms]
    that_run = [each for each in webllms if why_unsupported(each) is None]
    return {
        "messages.ts": _messages(),
        "api.ts": _module("api/", {}, API),
        "error_classes.ts": _error_classes(),
        "error_codes.ts": _error_codes(),
        "prebuilt.json": _catalogue(prebuilt_app_config().model_list),
        "../page/models.json": _catalogue(ours),
        "../page/webllm_models.json": _catalogue(that_run),
        "unsupported_fields.json": json.dumps([*UNSUPPORTED_CHAT_FIELDS], indent=2) + "\n",
    }


def _catalogue(records: Iterable[ModelRecord]) -> str:
    """Has one record on each line."""
    lines = ",\n".join(json.dumps(msgspec.to_builtins(record)) for record in records)
    return f'{{"model_list": [\n{lines}\n]}}\n'


def _messages() -> str:
    kinds = KINDS.values()
    unanswered = ", ".join(json.dumps(kind.name) for kind in kinds if not kind.is_answered)
    repeatable = [f"  {json.dumps(kind.name)}," for kind in kinds if kind.is_repeatable]
    of_kinds = [*(kind.content for kind in kinds), *(kind.result for kind in kinds)]
    types = [*(part for each in of_kinds for part in (each, *get_args(each))), KeepAlive]
    named = [each for each in types if isinstance(each, type) and issubclass(each, msgspec.Struct)]
    replies = {each.__name__ for each in named if issubclass(each, ResponseStruct)}
    here = [each for each in named if not issubclass(each, ResponseStruct)]
    methods = [method for method in vars(EngineMessages).values() if hasattr(method, "kind")]
    imports = [_import(sorted(replies), "api"), 'import type { Connection } from "./connection";']
    aliases = {"AnyReply": AnyReply, "LogLevel": LogLevel}
    return "\n".join(
        [
            _module("workers/messages.py", aliases, here, imports),
            "/** Of each kind of request. */",
            _fields("Contents", {kind.name: _named(kind.content) for kind in kinds}),
            "/** Of the reply to each kind of request. */",
            _fields("Results", {kind.name: _result(kind) for kind in kinds}),
            "export type Kind = keyof Contents;\n",
            "type OfKind<K extends Kind> = { kind: K; uuid: string; content: Contents[K] };\n",
            "export type AnyRequest = { [K in Kind]: OfKind<K> }[Kind] | KeepAlive;\n",
            "/** The version of what we add to WebLLM's messages. */",
            f"export const PROTOCOL = {PROTOCOL};\n",
            "/** Kinds whose reply, if there is any, nobody waits for. */",
            f"export const UNANSWERED: ReadonlySet<unknown> = new Set([{unanswered}]);\n",
            "/** Kinds that a client which loses its worker may ask the next one. */",
            "export const REPEATABLE: ReadonlySet<Kind> = new Set<Kind>([",
            *repeatable,
            "]);\n",
            "/** An engine's methods that are one message and its reply. */",
            "export abstract class EngineMessages {",
            "  protected abstract readonly connection: Connection;\n",
            "\n\n".join(_method(method, method.kind) for method in methods),
            "}\n",
        ]
    )


def _import(names: list[str], file: str) -> str:
    """As prettier breaks it."""
    line = f'import type {{ {", ".join(names)} }} from "./{file}";'
    if len(line) <= LINE:
        return line
    return "\n".join(["import type {", *(f"  {name}," for name in names), f'}} from "./{file}";'])


def _named(kind: Any) -> str:
    """The name of a content's or a result's type, or the type itself if it has no name."""
    match kind:
        case UnionType():
            return " | ".join(map(_named, get_args(kind)))
        case GenericAlias() if kind.__origin__ is list:
            return f"{_named(*get_args(kind))}[]"
        case type() if issubclass(kind, msgspec.Struct):
            return kind.__name__
        case type() if kind is object:
            return "unknown"
    return "LogLevel" if kind == LogLevel else _type(msgspec.json.schema(kind))


def _result(kind: Kind[Any]) -> str:
    return "void" if kind.result is NoneType else _named(kind.result)


def _fields(name: str, fields: dict[str, str]) -> str:
    lines = [f"  {field}: {kind};" for field, kind in fields.items()]
    return "\n".join([f"export interface {name} {{", *lines, "}\n"])


def _literal(value: object) -> str:
    """Returns plain data as prettier writes it on one line."""
    if isinstance(value, dict):
        fields = (f"{name}: {_literal(each)}" for name, each in value.items())
        return f"{{ {', '.join(fields)} }}"
    return json.dumps(value)


def _method(method: Any, kind: Kind[Any]) -> str:
    """Has the parameters of the method in Python, and their defaults."""
    _, *given = inspect.signature(method).parameters.values()
    fields = msgspec.structs.fields(kind.content) if given else ()
    by_name = {field.name: field for field in fields}
    names = [by_name[each.name].encode_name for each in given]
    types = [_type(msgspec.json.schema(by_name[each.name].type)) for each in given]
    content = f"{{ {', '.join(names)} }}" if given else "null"
    parameters = [
        f"{name}{_default(type_, each.default)}"
        for name, type_, each in zip(names, types, given, strict=True)
    ]
    says = (method.__doc__ or "").replace("None", "null")
    fallback = _literal(msgspec.to_builtins(kind.fallback))
    is_newer = [f"    if (!this.connection.speaks({kind.since})) return {fallback};"]
    return "\n".join(
        [
            *(f"  {line}" for line in _comment({"description": says})),
            *_head(kind, parameters),
            *(is_newer if kind.since else []),
            f'    return this.connection.call("{kind.name}", {content});',
            "  }",
        ]
    )


def _default(kind: str, value: object) -> str:
    if value is inspect.Parameter.empty:
        return f": {kind}"
    return f" = {json.dumps(value)}" if value is not None else f": {kind} = null"


def _head(kind: Kind[Any], parameters: list[str]) -> list[str]:
    """As prettier breaks it."""
    name = f"async {kind.name}" if kind.since else kind.name
    result = f"Promise<{_result(kind)}>"
    line = f"  {name}({', '.join(parameters)}): {result} {{"
    if len(line) <= LINE:
        return [line]
    return [f"  {name}(", *(f"    {each}," for each in parameters), f"  ): {result} {{"]


def _error_codes() -> str:
    classes = [errors.WebLLMError, *_below(errors.WebLLMError)]
    entries = [f'  {e.__name__}: {{ code: "{e.code}", status: {e.status} }},' for e in classes]
    return "\n".join(
        [
            "// Made by client_types.py from src/webllm/errors.py; do not edit.\n",
            "/** By the name of the error's class. */",
            "export const ERROR_CODES = {",
            *entries,
            "} as const;\n\nexport type ErrorName = keyof typeof ERROR_CODES;\n",
        ]
    )


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


def _module(
    source: str, aliases: dict[str, Any], structs: list[Any], imports: list[str] | None = None
) -> str:
    kinds = [*aliases.values(), *structs]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="{name}")
    named = zip(aliases, schemas, strict=False)
    used = _used(components)
    written = [f'import type {{ {name} }} from "./{WRITTEN[name]}";' for name in used]
    written = [*(imports or []), *written]
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
        _field(
            f"{field}{'' if field in required else '?'}:",
            [known] if (known := FIELDS.get((name, field))) else _options(kind),
        )
        for field, kind in schema["properties"].items()
    ]
    return "\n".join([*_comment(schema), f"export interface {name} {{", *fields, "}\n"])


def _field(head: str, options: list[str]) -> str:
    """As prettier breaks it: on one line, or an option on each line."""
    line = f"  {head} {' | '.join(options)};"
    if len(line) <= LINE:
        return line
    return "\n".join([f"  {head}", *(f"    | {option}" for option in options)]) + ";"


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
