"""Requests: accepted fields, and errors that name the field, the value and the range."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from webllm.api.chat_completion import ChatCompletionMessage
from webllm.api.requests import ChatCompletionRequest
from webllm.api.validation import chat_completion_request, completion_request, embedding_request
from webllm.errors import RequestError

USER = {"role": "user", "content": "Hello"}
TOOL = {"type": "function", "function": {"name": "add"}}


def test_every_field_is_read() -> None:
    request = chat_completion_request(
        {
            "messages": [{"role": "system", "content": "Be brief."}, USER],
            "model": "m",
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 5,
            "n": 2,
            "temperature": 0,
            "top_p": 1,
            "top_k": 40,
            "min_p": 0.05,
            "frequency_penalty": -2,
            "presence_penalty": 2,
            "repetition_penalty": 1.1,
            "logit_bias": {"5": -100, 6: 100},
            "logprobs": True,
            "top_logprobs": 20,
            "seed": 7,
            "stop": ["a", "b"],
            "ignore_eos": True,
            "extra_body": {
                "enable_thinking": False,
                "enable_latency_breakdown": True,
                "context_overflow": "shift",
                "resumable": {"enabled": True, "sessionId": "s", "from_token": [1, 0]},
                "request_id": "r",
                "return_token_ids": True,
                "return_progress": True,
            },
            "tools": [TOOL],
            "tool_choice": {"type": "function", "function": {"name": "add"}},
            "response_format": {"type": "json_object", "schema": "{}"},
            "user": "somebody",
        }
    )
    assert request.logit_bias == {5: -100.0, 6: 100.0}
    assert request.stop_strings == ("a", "b")
    assert request.include_usage
    assert [message.text for message in request.messages] == ["Be brief.", "Hello"]
    assert all(getattr(request, name) is not None for name in request.__struct_fields__)
    extra_body = request.extra_body
    assert extra_body is not None
    assert all(getattr(extra_body, name) is not None for name in extra_body.__struct_fields__)


NESTED: list[object] = []
for _ in range(5000):
    NESTED = [NESTED]
RESUMABLE = "extra_body.resumable"


def extra(**fields: object) -> dict[Any, Any]:
    return {"extra_body": fields}


WRONG_GENERATION: list[tuple[dict[Any, Any], str | None, str | None]] = [
    (extra(request_id=""), "extra_body.request_id", "has 0 characters, received ''"),
    (extra(request_id="x" * 257), "extra_body.request_id", "has 257 characters, received 'xxx"),
    (extra(request_id="\ud800"), "extra_body.request_id", "surrogate"),
    (extra(return_token_ids="\ud800"), None, "surrogate"),
    (extra(return_progress=True), "extra_body", "return_progress is True, which needs stream=True"),
    ({**extra(return_progress=1), "stream": True}, "extra_body.return_progress", "received 1"),
    (extra(resumable={"session_id": ""}), f"{RESUMABLE}.session_id", "has 0 characters"),
    (extra(resumable={"sessionId": "\ud800"}), f"{RESUMABLE}.session_id", "surrogate"),
    (
        extra(resumable={"session_id": "a", "sessionId": "b"}),
        "extra_body",
        "has session_id twice, 'a' and 'b'",
    ),
    (extra(resumable={"from_token": 3}), "extra_body", "from_token is 3, which needs stream=True"),
    ({**extra(resumable={"from_token": -1}), "stream": True}, f"{RESUMABLE}.from_token", "is -1"),
    ({"model": 3}, "model", "expected str, got int, received 3"),
    ({"stream": "yes"}, "stream", "expected bool, got str, received 'yes'"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "stream=True"),
    ({"stream_options": {}, "stream": False}, "stream_options", "stream=True"),
    ({"stream_options": True, "stream": True}, "stream_options", "received True"),
    ({"stream_options": {"usage": True}, "stream": True}, "stream_options", "'usage'"),
    ({"max_tokens": 0}, "max_tokens", "max_tokens is 0; it has to be at least 1"),
    ({"max_tokens": -1}, "max_tokens", "at least 1"),
    ({"max_tokens": 1.5}, "max_tokens", "expected int"),
    ({"max_completion_tokens": 0}, "max_tokens", "at least 1"),
    ({"max_completion_tokens": 5, "max_tokens": 6}, "max_completion_tokens", "give one of them"),
    ({"n": 0}, "n", "at least 1 and at most 128"),
    ({"n": 129}, "n", "n is 129"),
    ({"n": 1.5}, "n", "expected int"),
    ({"temperature": -0.1}, "temperature", "temperature is -0.1; it has to be at least 0"),
    ({"temperature": 2.5}, "temperature", "at most 2"),
    ({"temperature": float("nan")}, "temperature", "nan"),
    ({"temperature": "hot"}, "temperature", "expected float, got str, received 'hot'"),
    ({"top_p": 0}, "top_p", "above 0 and at most 1"),
    ({"top_p": 1.01}, "top_p", "1.01"),
    ({"top_k": -1}, "top_k", "at least 0"),
    ({"top_k": 2**31}, "top_k", "at most 2147483647"),
    ({"top_k": 0.5}, "top_k", "expected int"),
    ({"min_p": 2}, "min_p", "at least 0 and at most 1"),
    ({"min_p": -0.1}, "min_p", "at least 0 and at most 1"),
    ({"frequency_penalty": 2.1}, "frequency_penalty", "at least -2 and at most 2"),
    ({"frequency_penalty": -2.1}, "frequency_penalty", "at least -2 and at most 2"),
    ({"presence_penalty": 2.1}, "presence_penalty", "at least -2 and at most 2"),
    ({"presence_penalty": -2.1}, "presence_penalty", "at least -2 and at most 2"),
    ({"repetition_penalty": 0}, "repetition_penalty", "at least 0.01 and at most 100"),
    ({"repetition_penalty": -1}, "repetition_penalty", "at least 0.01"),
    ({"repetition_penalty": float("inf")}, "repetition_penalty", "at most 100"),
    ({"logit_bias": {"5": 101}}, "logit_bias", "logit_bias[5] is 101.0"),
    ({"logit_bias": {"5": -100.5}}, "logit_bias", "at least -100 and at most 100"),
    ({"logit_bias": {"five": 1}}, "logit_bias", "'five'"),
    ({"logit_bias": {-5: 1}}, "logit_bias", "-5"),
    ({"n": 10**5000}, "n", "n is a value of type int; it has to be at least 1"),
    ({"logit_bias": {"9" * 5000: 1}}, "logit_bias", "has the key '9999"),
    ({"logit_bias": {10**5000: 1}}, "logit_bias", "has the key a value of type int"),
    ({"logit_bias": {"5": "a lot"}}, "logit_bias", "expected float"),
    ({"logit_bias": [5]}, "logit_bias", "received [5]"),
    ({"logprobs": 5}, "logprobs", "expected bool, got int, received 5"),
    ({"top_logprobs": 1}, "top_logprobs", "logprobs=True"),
    ({"top_logprobs": 0, "logprobs": False}, "top_logprobs", "logprobs=True"),
    ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "at least 0 and at most 20"),
    ({"top_logprobs": -1, "logprobs": True}, "top_logprobs", "at least 0 and at most 20"),
    ({"seed": 1.5}, "seed", "expected int, got float, received 1.5"),
    ({"seed": True}, "seed", "expected int"),
    ({"seed": "7"}, "seed", "expected int"),
    ({"stop": 3}, "stop", "received 3"),
    ({"stop": [3]}, "stop[0]", "received 3"),
    ({"stop": ["a", ""]}, "stop", "empty"),
    ({"stop": ""}, "stop", "empty"),
    ({"ignore_eos": 1}, "ignore_eos", "expected bool"),
    ({"extra_body": True}, "extra_body", "received True"),
    ({"extra_body": {"think": True}}, "extra_body", "unknown field 'think'"),
    ({"extra_body": {"enable_thinking": 0}}, "extra_body.enable_thinking", "expected bool"),
    (
        {"extra_body": {"enable_latency_breakdown": "x"}},
        "extra_body.enable_latency_breakdown",
        "expected bool",
    ),
    (
        {"extra_body": {"context_overflow": "forget"}},
        "extra_body.context_overflow",
        "one of 'error', 'shift', 'truncate_oldest_messages', received 'forget'",
    ),
    ({"tempersture": 1}, "tempersture", "did you mean temperature?"),
    ({"xyz": 1}, "xyz", "known are"),
    ({5: 1}, "5", "known are"),
    ({"topP": 1}, "topP", "did you mean top_p?"),
    ({"maxTokens": 1}, "maxTokens", "did you mean max_tokens?"),
    ({"logit_bias": {"5": object()}}, None, "plain data"),
    ({"logit_bias": NESTED}, None, "nested too deeply"),
]
WRONG_CHAT: list[tuple[dict[str, Any], str | None, str | None]] = [
    ({"functions": []}, "functions", "use tools"),
    ({"tools": {}}, "tools", "received {}"),
    ({"xyz": None}, None, None),
    ({"tools": [{**TOOL, "type": "web"}]}, "tools[0].type", "one of 'function', received 'web'"),
    ({"tools": [{"type": "function"}]}, "tools[0].function", "is missing"),
    ({"tools": [{"function": {}}]}, "tools[0].function.name", "is missing"),
    (
        {"tools": [{"function": {"name": "f", "parameters": "{}"}}]},
        "tools[0].function.parameters",
        "received '{}'",
    ),
    ({"tool_choice": "auto"}, "tool_choice", "needs tools"),
    ({"tool_choice": "required", "tools": []}, "tool_choice", "needs tools"),
    ({"tool_choice": "none"}, None, None),
    (
        {"tools": [TOOL], "tool_choice": "sometimes"},
        "tool_choice",
        "one of 'auto', 'none', 'required', an object, received 'sometimes'",
    ),
    (
        {"tools": [TOOL], "tool_choice": {"type": "x", "function": {"name": "add"}}},
        "tool_choice.type",
        "one of 'function', received 'x'",
    ),
    (
        {"tools": [TOOL], "tool_choice": {"function": {"name": "sub"}}},
        "tool_choice",
        "'sub'; tools are add",
    ),
    (
        {"response_format": {"type": "xml"}},
        "response_format.type",
        "one of 'grammar', 'json_object', 'json_schema', 'structural_tag', 'text', received 'xml'",
    ),
    ({"response_format": "json"}, "response_format", "received 'json'"),
    ({"response_format": {"schema": "{}"}}, "response_format", "'json_object'"),
    (
        {"response_format": {"type": "grammar", "schema": "{}"}},
        "response_format",
        "schema needs type 'json_object', received 'grammar'",
    ),
    (
        {"response_format": {"type": "json_object", "schema": {}}},
        "response_format.schema",
        "expected str, got object",
    ),
    ({"response_format": {"type": "grammar"}}, "response_format", "grammar is missing"),
    (
        {"response_format": {"type": "json_object", "grammar": "x"}},
        "response_format",
        "grammar needs type 'grammar', received 'json_object'",
    ),
    ({"response_format": {"type": "json_schema"}}, "response_format", "json_schema is missing"),
    (
        {"response_format": {"json_schema": {"name": "x"}}},
        "response_format",
        "json_schema needs type 'json_schema', received 'text'",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        "response_format.json_schema.name",
        "is missing",
    ),
    ({"user": 3}, "user", "expected str"),
    ({"prompt": "Once"}, "prompt", "known are"),
]


def wrong(fields: dict[str, Any], read: Callable[[Any], object]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        read(fields)
    return caught.value


@pytest.mark.parametrize(("fields", "field", "said"), WRONG_GENERATION)
def test_a_wrong_field_of_either_kind_is_named(
    fields: dict[str, Any], field: str | None, said: str
) -> None:
    for error in (
        wrong({"messages": [USER], **fields}, chat_completion_request),
        wrong({"prompt": "Once", **fields}, completion_request),
    ):
        assert error.field == field
        assert said in str(error)


@pytest.mark.parametrize(("fields", "field", "said"), WRONG_CHAT)
def test_a_wrong_field_is_named(
    fields: dict[str, Any], field: str | None, said: str | None
) -> None:
    request = {"messages": [USER], **fields}
    if said is None:
        chat_completion_request(request)
        return
    error = wrong(request, chat_completion_request)
    assert error.field == field
    assert said in str(error)


@pytest.mark.parametrize(
    ("messages", "field", "said"),
    [
        ([], "messages", "messages is empty"),
        (None, "messages", "messages is missing"),
        ("Hello", "messages", "received 'Hello'"),
        ([{"content": "Hello"}], "messages[0].role", "messages[0].role is missing"),
        (
            [{"role": "bot", "content": "Hello"}],
            "messages[0].role",
            "one of 'assistant', 'developer', 'system', 'tool', 'user', received 'bot'",
        ),
        ([{"role": "model", "content": "x"}, USER], "messages[0].role", "'model'"),
        ([USER, {"role": "developer", "content": "x"}], "messages[1].role", "'developer'; only"),
        ([{"role": "function", "content": "x"}], "messages[0].role", "'function'"),
        ([USER, "Hello"], "messages[1]", "received 'Hello'"),
        ([{**USER, "name": 3}], "messages[0].name", "expected str"),
        ([{"role": "system", "content": "x"}], "messages[0].role", "the last message"),
        ([{"role": "assistant"}, USER], "messages[0].content", "is missing"),
        (
            [{"role": "assistant", "tool_calls": [{"id": "0"}]}, USER],
            "messages[0].tool_calls[0].function",
            "is missing",
        ),
        (
            [{"role": "user", "content": [{"type": "audio"}]}],
            "messages[0].content[0].type",
            "one of 'image_url', 'input_audio', 'text', received 'audio'",
        ),
        ([{"role": "user"}], "messages[0].content", "content is missing"),
        ([{"role": "user", "content": 5}], "messages[0].content", "received 5"),
        ([{**USER, "contents": "x"}], "messages[0]", "unknown field 'contents'"),
        ([USER, {"role": "system", "content": "x"}, USER], "messages[1].role", "only the first"),
        ([USER, {"role": "assistant", "content": "Hi"}], "messages[1].role", "'assistant'"),
        ([{"role": "tool", "content": "4"}], "messages[0].tool_call_id", "is missing"),
        ([{**USER, "tool_call_id": "0"}], "messages[0].tool_call_id", "belongs to role 'tool'"),
        ([{**USER, "tool_calls": []}], "messages[0].tool_calls", "'assistant'"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}],
            "messages[0].content[0]",
            "only text",
        ),
        (
            [{"role": "user", "content": [{"type": "text"}]}],
            "messages[0].content[0].text",
            "is missing",
        ),
    ],
)
def test_a_wrong_message_is_named(messages: object, field: str, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        chat_completion_request({"messages": messages})
    assert caught.value.field == field
    assert said in str(caught.value)


def test_an_answer_can_be_sent_back_as_it_came() -> None:
    answer = ChatCompletionMessage(content="Hi")
    request = chat_completion_request({"messages": [USER, answer, USER]})
    assert request.messages[1].role == "assistant"


def test_a_request_object_is_read_as_well() -> None:
    request = chat_completion_request({"messages": [USER], "logit_bias": {"5": 1}})
    assert chat_completion_request(request) == request
    with pytest.raises(RequestError, match="top_p"):
        chat_completion_request(msgspec.structs.replace(request, top_p=7))
    assert isinstance(request, ChatCompletionRequest)


def test_newer_names_of_openai() -> None:
    messages = [{"role": "developer", "content": "Be brief."}, USER]
    request = chat_completion_request(
        {"messages": messages, "max_completion_tokens": 5, "max_tokens": 5}
    )
    assert (request.messages[0].role, request.max_tokens) == ("system", 5)
    assert messages[0]["role"] == "developer"


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = chat_completion_request({"messages": [{"role": "user", "content": parts}]})
    assert request.messages[0].text == "a\nb"


def test_none_is_the_same_as_left_out() -> None:
    fields = dict.fromkeys(ChatCompletionRequest.__struct_fields__)
    fields |= dict.fromkeys(["functions", "store", "max_completion_tokens", "xyz"])
    request = {**fields, "messages": [{**USER, "name": None, "tool_calls": None, "xyz": None}]}
    assert chat_completion_request(request) == chat_completion_request({"messages": [USER]})


def test_several_choices_may_be_streamed() -> None:
    """WebLLM refuses this (StreamingCountError), because it runs one sequence at a time."""
    assert chat_completion_request({"messages": [USER], "n": 2, "stream": True}).n == 2


@pytest.mark.parametrize("request_", ["Hello", None, 5, [USER]])
def test_what_is_no_request_is_refused(request_: Any) -> None:
    for read in (chat_completion_request, completion_request, embedding_request):
        assert "a request must be a mapping of fields to values" in str(wrong(request_, read))


def test_completion_requests() -> None:
    request = completion_request({"prompt": "Once", "stop": ".", "max_tokens": 3, "echo": True})
    assert (request.prompt, request.stop_strings, request.echo) == ("Once", (".",), True)


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({}, "prompt", "prompt is missing"),
        ({"prompt": None}, "prompt", "prompt is missing"),
        ({"prompt": ["Once"]}, "prompt", "expected str, got array, received ['Once']"),
        ({"prompt": "Once", "echo": "yes"}, "echo", "expected bool"),
        ({"prompt": "Once", "suffix": "end"}, "suffix", "suffix is not supported"),
        ({"prompt": "Once", "best_of": 2}, "best_of", "use n"),
        ({"prompt": "Once", "user": "me"}, "user", "leave it out"),
        ({"prompt": "Once", "messages": [USER]}, "messages", "known are"),
        ({"prompt": "Once", "tools": [TOOL]}, "tools", "known are"),
        ({"promt": "Once"}, "promt", "did you mean prompt"),
    ],
)
def test_a_wrong_completion_field_is_named(fields: dict[str, Any], field: str, said: str) -> None:
    error = wrong(fields, completion_request)
    assert error.field == field
    assert said in str(error)


@pytest.mark.parametrize("text", ["Hello", ["Hello", "you"], [1, 2], [[1, 2], [3]]])
def test_embedding_requests(text: object) -> None:
    fields = {"input": text, "model": "m", "encoding_format": "float", "user": "me"}
    request = embedding_request(fields)
    assert msgspec.structs.asdict(request) == fields


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({}, "input", "input is missing"),
        ({"input": ""}, "input", "empty"),
        ({"input": []}, "input", "empty"),
        ({"input": ["a", ""]}, "input", "empty"),
        ({"input": [[1], []]}, "input", "empty"),
        ({"input": ["a", 1]}, "input", "mixes texts and token ids"),
        ({"input": 5}, "input", "received 5"),
        ({"input": [1.5]}, "input[0]", "received 1.5"),
        ({"input": "a", "encoding_format": "base64"}, "encoding_format", "one of 'float'"),
        ({"input": "a", "dimensions": 5}, "dimensions", "is not supported"),
        ({"input": "a", "model": 5}, "model", "expected str"),
        ({"inputs": "a"}, "inputs", "did you mean input?"),
    ],
)
def test_a_wrong_embedding_field_is_named(fields: dict[str, Any], field: str, said: str) -> None:
    error = wrong(fields, embedding_request)
    assert error.field == field
    assert said in str(error)
