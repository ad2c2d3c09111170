"""The base of all responses: conversion to plain data and JSON, and a short repr."""

from __future__ import annotations

from reprlib import Repr
from typing import Any

import msgspec

CHOICES_APART = "\n\n---\n\n"  # between the choices of a response, in a notebook

_REPR = Repr()
_REPR.maxstring = _REPR.maxother = 60  # characters
_REPR.maxlist = 3  # items


class ResponseStruct(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A response or a part of one. JSON leaves out fields that hold their default."""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data, without the fields that hold their default."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    def to_json(self) -> str:
        """Returns `to_dict` as JSON."""
        return msgspec.json.encode(self).decode()

    def model_dump(self, *, exclude_none: bool = False) -> dict[str, Any]:
        """Returns plain data with every field.

        It is pydantic's method, which the responses of OpenAI's client have.
        """
        tag = self.__struct_config__.tag_field
        plain = {tag: self.__struct_config__.tag} if tag else {}
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            if value is not None or not exclude_none:
                plain[field.encode_name] = _dumped(value, exclude_none)
        return plain

    def model_dump_json(self, *, indent: int | None = None, exclude_none: bool = False) -> str:
        """Returns `model_dump` as JSON, on one line or indented by `indent` spaces per level."""
        data = msgspec.json.encode(self.model_dump(exclude_none=exclude_none))
        return (data if indent is None else msgspec.json.format(data, indent=indent)).decode()

    def __repr__(self) -> str:
        """Shows the fields that are not None, long values abbreviated."""
        fields = ((name, getattr(self, name)) for name in self.__struct_fields__)
        shown = (f"{name}={_short(value)}" for name, value in fields if value is not None)
        return f"{type(self).__name__}({', '.join(shown)})"


def _dumped(value: Any, exclude_none: bool) -> Any:
    if isinstance(value, ResponseStruct):
        return value.model_dump(exclude_none=exclude_none)
    if isinstance(value, list):
        return [_dumped(each, exclude_none) for each in value]
    return value


def _short(value: Any) -> str:
    if isinstance(value, ResponseStruct):
        return repr(value)
    if isinstance(value, list) and value and isinstance(value[0], ResponseStruct):
        more = f", … {len(value)} in all" if len(value) > _REPR.maxlist else ""
        return f"[{', '.join(map(repr, value[: _REPR.maxlist]))}{more}]"
    return _REPR.repr(value)
