"""Requests: what is accepted, and the field, value and range named when something is not."""

from typing import Any

import msgspec
import pytest

from webllm.api.chat_completion import ChatCompletionMessage
from webllm.api.requests import ChatCompletionRequest
from webllm.api.validation import chat_completion_request, completion_request
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
            "extra_body": {"enable_thinking": False},
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


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"temperature": -0.1}, "temperature", "temperature is -0.1; it has to be at least 0"),
        ({"temperature": 2.5}, "temperature", "at most 2"),
        ({"temperature": float("nan")}, "temperature", "nan"),
        ({"temperature": "hot"}, "temperature", "expected float, got str, received 'hot'"),
        ({"top_p": 0}, "top_p", "above 0 and at most 1"),
        ({"top_p": 1.01}, "top_p", "1.01"),
        ({"min_p": 2}, "min_p", "at least 0 and at most 1"),
        ({"top_k": -1}, "top_k", "at least 0"),
        ({"frequency_penalty": 2.1}, "frequency_penalty", "at least -2 and at most 2"),
        ({"presence_penalty": -2.1}, "presence_penalty", "at least -2 and at most 2"),
        ({"repetition_penalty": 0}, "repetition_penalty", "above 0"),
        ({"max_tokens": 0}, "max_tokens", "at least 1"),
        ({"max_completion_tokens": 0}, "max_tokens", "at least 1"),
        ({"max_tokens": 1.5}, "max_tokens", "expected int"),
        ({"n": 0}, "n", "at least 1"),
        ({"seed": 1.5}, "seed", "expected int"),
        ({"seed": True}, "seed", "expected int"),
        ({"stop": 3}, "stop", "received 3"),
        ({"stop": ["a", ""]}, "stop", "empty"),
        ({"logit_bias": {"5": 101}}, "logit_bias", "logit_bias[5] is 101.0"),
        ({"logit_bias": {"five": 1}}, "logit_bias", "'five'"),
        ({"logit_bias": {-5: 1}}, "logit_bias", "-5"),
        ({"logit_bias": {"5": "a lot"}}, "logit_bias", "expected float"),
        ({"logit_bias": [5]}, "logit_bias", "received [5]"),
        ({"top_logprobs": 1}, "top_logprobs", "logprobs=True"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "at most 20"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream=True"),
        ({"tempersture": 1}, "tempersture", "did you mean temperature?"),
        ({"xyz": None}, None, None),
        ({"xyz": 1}, "xyz", "known are"),
        ({"functions": []}, "functions", "use tools"),
        ({"extra_body": {"think": True}}, "extra_body", "unknown field 'think'"),
        ({"tool_choice": "auto"}, "tool_choice", "needs tools"),
        ({"tools": [TOOL], "tool_choice": "sometimes"}, "tool_choice", "'sometimes'"),
        (
            {"tools": [TOOL], "tool_choice": {"function": {"name": "sub"}}},
            "tool_choice",
            "'sub'; tools has add",
        ),
        ({"response_format": {"type": "xml"}}, "response_format.type", "'xml'"),
        ({"response_format": {"schema": "{}"}}, "response_format", "'json_object'"),
        ({"response_format": {"type": "grammar"}}, "response_format", "grammar is missing"),
        ({"user": object()}, None, "plain data"),
    ],
)
def test_a_wrong_field_is_named(
    fields: dict[str, Any], field: str | None, said: str | None
) -> None:
    request = {"messages": [USER], **fields}
    if said is None:
        chat_completion_request(request)
        return
    with pytest.raises(RequestError) as caught:
        chat_completion_request(request)
    assert caught.value.field == field
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("messages", "field", "said"),
    [
        ([], "messages", "messages is empty"),
        (None, "messages", "messages is missing"),
        ("Hello", "messages", "received 'Hello'"),
        ([{"content": "Hello"}], "messages[0].role", "messages[0].role is missing"),
        ([{"role": "bot", "content": "Hello"}], "messages[0].role", "'bot'"),
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


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = chat_completion_request({"messages": [{"role": "user", "content": parts}]})
    assert request.messages[0].text == "a\nb"


def test_completion_requests() -> None:
    request = completion_request({"prompt": "Once", "stop": ".", "max_tokens": 3, "echo": True})
    assert (request.prompt, request.stop_strings) == ("Once", (".",))
    with pytest.raises(RequestError, match="prompt is missing"):
        completion_request({})
    with pytest.raises(RequestError, match="suffix is not supported"):
        completion_request({"prompt": "Once", "suffix": "end"})
    with pytest.raises(RequestError, match="did you mean prompt"):
        completion_request({"promt": "Once"})
