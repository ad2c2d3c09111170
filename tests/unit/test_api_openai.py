"""OpenAI's own types read our responses, and we read their requests.

Our additions are finish_reason "abort", `usage.extra`, and the log probabilities of text
completions, which have the form of chat completions, as in WebLLM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

import pytest
from fake_model import asked, make_engine
from msgspec import Struct
from openai import types
from openai.types import chat, completion_create_params, embedding_create_params
from openai.types.chat import chat_completion_chunk
from openai.types.chat import completion_create_params as chat_create_params
from pydantic import BaseModel, TypeAdapter, ValidationError

from webllm.api.chat_completion import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    ChatCompletionMessageToolCall,
    Choice,
    ChunkChoice,
    Delta,
    FunctionCall,
    FunctionCallDelta,
    ToolCallDelta,
)
from webllm.api.embedding import CreateEmbeddingResponse, Embedding, EmbeddingUsage
from webllm.api.requests import (
    UNSUPPORTED_CHAT_FIELDS,
    UNSUPPORTED_COMPLETION_FIELDS,
    UNSUPPORTED_EMBEDDING_FIELDS,
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingRequest,
)
from webllm.api.validation import chat_completion_request, completion_request, embedding_request
from webllm.errors import RequestError


def same(ours: Any, theirs: type[BaseModel]) -> None:
    """Checks that OpenAI's type reads our response and has all of its fields."""
    plain = ours.to_dict()
    read = theirs.model_validate(plain, strict=True)
    assert read.model_dump(exclude_unset=True) == plain
    assert set(unknown_fields(read)) <= {"usage.extra"}


def unknown_fields(model: BaseModel, path: str = "") -> Iterator[str]:
    for name in model.model_extra or ():
        yield path + name
    for name in model.model_fields_set - set(model.model_extra or ()):
        value = getattr(model, name)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, BaseModel):
                yield from unknown_fields(each, f"{path}{name}.")


class TestResponses:
    @pytest.mark.parametrize("logprobs", [{}, {"logprobs": True, "top_logprobs": 2}])
    async def test_chat_completions(self, logprobs: dict[str, Any]) -> None:
        engine = make_engine()
        reply = await engine.chat.completions.create(**asked("1", n=2, max_tokens=3, **logprobs))
        same(reply, chat.ChatCompletion)
        assert (reply.choices[0].logprobs is None) == (not logprobs)

    async def test_usage(self) -> None:
        reply = await make_engine().chat.completions.create(**asked("1", max_tokens=3))
        usage = types.CompletionUsage.model_validate(reply.to_dict()["usage"], strict=True)
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (1, 3, 4)
        assert usage.prompt_tokens_details == types.completion_usage.PromptTokensDetails(
            cached_tokens=0
        )

    async def test_chunks(self) -> None:
        stream = await make_engine().chat.completions.create(
            **asked("1", n=2, max_tokens=3, logprobs=True, top_logprobs=1, stream=True),
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].usage is not None
        for chunk in chunks:
            same(chunk, chat.ChatCompletionChunk)

    async def test_completions(self) -> None:
        engine = make_engine()
        same(await engine.completions.create(prompt="1", n=2, max_tokens=3), types.Completion)
        *chunks, last, usage = [
            chunk
            async for chunk in await engine.completions.create(
                prompt="1", max_tokens=3, stream=True, stream_options={"include_usage": True}
            )
        ]
        same(last, types.Completion)
        same(usage, types.Completion)
        # OpenAI streams null as well, against its own types.
        assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 3

    async def test_logprobs_of_completions_are_those_of_chats(self) -> None:
        reply = await make_engine().completions.create(prompt="1", max_tokens=3, logprobs=True)
        plain = reply.to_dict()["choices"][0]["logprobs"]
        chat.chat_completion.ChoiceLogprobs.model_validate(plain, strict=True)

    def test_tool_calls(self) -> None:
        call = ChatCompletionMessageToolCall(
            id="call_0", function=FunctionCall(name="add", arguments='{"a": 1}')
        )
        message = ChatCompletionMessage(content=None, tool_calls=[call])
        choice = Choice(index=0, message=message, finish_reason="tool_calls", logprobs=None)
        reply = ChatCompletion(id="1", created=1, model="m", choices=[choice])
        same(reply, chat.ChatCompletion)
        read = chat.ChatCompletion.model_validate(reply.to_dict()).choices[0].message.tool_calls
        assert read is not None
        assert isinstance(read[0], chat.ChatCompletionMessageFunctionToolCall)

    def test_tool_calls_in_chunks(self) -> None:
        for delta in (
            ToolCallDelta(
                index=0, id="call_0", type="function", function=FunctionCallDelta(name="add")
            ),
            ToolCallDelta(index=0, function=FunctionCallDelta(arguments='{"a"')),
        ):
            same(delta, chat_completion_chunk.ChoiceDeltaToolCall)
            choice = ChunkChoice(index=0, delta=Delta(tool_calls=[delta]), finish_reason=None)
            chunk = ChatCompletionChunk(id="1", created=1, model="m", choices=[choice])
            same(chunk, chat.ChatCompletionChunk)

    def test_embeddings(self) -> None:
        data = [Embedding(index=0, embedding=[0.5, -1.0])]
        usage = EmbeddingUsage(prompt_tokens=2, total_tokens=2)
        same(
            CreateEmbeddingResponse(data=data, model="m", usage=usage),
            types.CreateEmbeddingResponse,
        )

    async def test_abort_is_ours(self) -> None:
        engine = make_engine()
        stream = await engine.chat.completions.create(**asked("1", stream=True))
        await anext(stream)
        engine.interrupt_generate()
        last = [chunk async for chunk in stream][-1].to_dict()
        with pytest.raises(ValidationError, match="finish_reason"):
            chat.ChatCompletionChunk.model_validate(last)
        read = chat.ChatCompletionChunk.construct(**last)  # as OpenAI's client reads it
        assert str(read.choices[0].finish_reason) == "abort"


ADD: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {"type": "object", "properties": {"a": {"type": "number", "default": None}}},
        "strict": True,
    },
}
CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief.", "name": "rules"},
        {"role": "user", "content": [{"type": "text", "text": "1 + 1?"}], "name": "Ada"},
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "0", "type": "function", "function": {"name": "add", "arguments": "{}"}}
            ],
            "content": None,
        },
        {"role": "tool", "tool_call_id": "0", "content": "2"},
    ],
    "frequency_penalty": 0.5,
    "presence_penalty": -0.5,
    "logit_bias": {"5": 10},
    "logprobs": True,
    "top_logprobs": 5,
    "max_completion_tokens": 7,
    "n": 2,
    "seed": 1,
    "stop": ["a", "b"],
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.5,
    "top_p": 0.5,
    "tools": [ADD],
    "tool_choice": {"type": "function", "function": {"name": "add"}},
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "sum", "schema": {"type": "object"}, "strict": True},
    },
    "user": "somebody",
}
COMPLETION: dict[str, Any] = {
    "model": "m",
    "prompt": "Once",
    "echo": True,
    "frequency_penalty": 0.5,
    "presence_penalty": -0.5,
    "logit_bias": {"5": 10},
    "max_tokens": 7,
    "n": 2,
    "seed": 1,
    "stop": ".",
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.5,
    "top_p": 0.5,
}
EMBEDDING: dict[str, Any] = {
    "model": "m",
    "input": ["a", "b"],
    "encoding_format": "float",
    "user": "somebody",
}
KINDS = pytest.mark.parametrize(
    ("request_fields", "theirs", "read", "ours", "unsupported"),
    [
        (
            CHAT,
            chat_create_params.CompletionCreateParamsStreaming,
            chat_completion_request,
            ChatCompletionRequest,
            UNSUPPORTED_CHAT_FIELDS,
        ),
        (
            COMPLETION,
            completion_create_params.CompletionCreateParamsStreaming,
            completion_request,
            CompletionRequest,
            UNSUPPORTED_COMPLETION_FIELDS,
        ),
        (
            EMBEDDING,
            embedding_create_params.EmbeddingCreateParams,
            embedding_request,
            EmbeddingRequest,
            UNSUPPORTED_EMBEDDING_FIELDS,
        ),
    ],
    ids=["chat", "completion", "embedding"],
)
Read = Callable[[dict[str, Any]], Any]


@KINDS
def test_their_requests_are_read(
    request_fields: dict[str, Any],
    theirs: type,
    read: Read,
    ours: type[Struct],
    unsupported: dict[str, str],
) -> None:
    TypeAdapter(theirs).validate_python(request_fields)
    request = read(request_fields)
    for name, value in request_fields.items():
        if name in ("model", "prompt", "n", "seed", "temperature", "input", "stop", "user"):
            assert getattr(request, name) == value
    if isinstance(request, ChatCompletionRequest):
        assert request.max_tokens == 7
        assert request.tools is not None
        assert request.tools[0].function.parameters == ADD["function"]["parameters"]
        assert request.response_format is not None
        assert request.response_format.json_schema is not None
        assert request.response_format.json_schema.schema == {"type": "object"}


@KINDS
def test_each_of_their_fields_is_read_or_refused_with_a_way_out(
    request_fields: dict[str, Any],
    theirs: type,
    read: Read,
    ours: type[Struct],
    unsupported: dict[str, str],
) -> None:
    known = {*ours.__struct_fields__, "max_completion_tokens"}
    for name in get_type_hints(theirs):
        assert (name in known) != (name in unsupported), name
        if name in unsupported:
            with pytest.raises(RequestError, match=f"{name} is not supported; ") as caught:
                read({**request_fields, name: "x"})
            assert caught.value.field == name


def test_their_message_can_be_sent_back() -> None:
    """A dump of it includes all unused fields, as None."""
    message = chat.ChatCompletionMessage(role="assistant", content="Hi").model_dump()
    assert message["refusal"] is None
    user = {"role": "user", "content": "Hello"}
    request = chat_completion_request({"messages": [user, message, user]})
    assert request.messages[1].text == "Hi"
