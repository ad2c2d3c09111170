"""What every response has in common: ways to plain data and JSON."""

from __future__ import annotations

from typing import Any

import msgspec


class Response(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A part of a response. Fields with a default are left out of JSON while they hold it."""

    def to_dict(self) -> dict[str, Any]:
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    def to_json(self) -> str:
        return msgspec.json.encode(self).decode()
