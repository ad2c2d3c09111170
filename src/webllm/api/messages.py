"""The messages and tools of a chat completion request."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Role = Literal["system", "developer", "user", "assistant", "tool"]


class RequestStruct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request or a part of one; unknown fields are refused."""


class ImageURL(RequestStruct, frozen=True, kw_only=True):
    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ChatCompletionContentPart(RequestStruct, frozen=True, kw_only=True):
    """A part of a message's content; the field named by `type` holds it."""

    type: Literal["text", "image_url", "input_audio"]
    text: str | None = None
    image_url: ImageURL | None = None
    input_audio: Any = None


class ToolCallFunction(RequestStruct, frozen=True, kw_only=True):
    name: str
    arguments: str  # JSON


class ToolCallParam(RequestStruct, frozen=True, kw_only=True):
    id: str
    function: ToolCallFunction
    type: Literal["function"] = "function"


class ChatCompletionMessageParam(RequestStruct, frozen=True, kw_only=True):
    """One message; `api.validation` checks which fields its role may have."""

    role: Role
    content: str | list[ChatCompletionContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCallParam] | None = None  # assistant
    tool_call_id: str | None = None  # tool

    @property
    def text(self) -> str:
        """The text of the message, its parts joined by line breaks."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if part.text is not None)
        return self.content or ""


class FunctionDefinition(RequestStruct, frozen=True, kw_only=True):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None  # JSON schema
    strict: bool | None = None


class ChatCompletionTool(RequestStruct, frozen=True, kw_only=True):
    function: FunctionDefinition
    type: Literal["function"] = "function"


class NamedFunction(RequestStruct, frozen=True, kw_only=True):
    name: str


class ChatCompletionNamedToolChoice(RequestStruct, frozen=True, kw_only=True):
    function: NamedFunction
    type: Literal["function"] = "function"


ToolChoice = Literal["none", "auto", "required"] | ChatCompletionNamedToolChoice
