"""Responses have OpenAI's JSON; resources pass fields on unchanged."""

import json

import msgspec

from webllm.api.chat_completion import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    Choice,
    ChunkChoice,
    Delta,
)
from webllm.api.completion import Completion, CompletionChoice
from webllm.api.embedding import CreateEmbeddingResponse, Embedding, EmbeddingUsage
from webllm.api.fields import ChatCompletionFields, CompletionFields, EmbeddingFields
from webllm.api.requests import ChatCompletionRequest, CompletionRequest, EmbeddingRequest
from webllm.api.resources import Chat, Completions
from webllm.api.usage import CompletionUsage, UsageExtra

USAGE = CompletionUsage(
    prompt_tokens=3,
    completion_tokens=2,
    total_tokens=5,
    extra=UsageExtra(
        e2e_latency_s=1.0,
        prefill_tokens_per_s=30.0,
        decode_tokens_per_s=20.0,
        time_to_first_token_s=0.1,
        time_per_output_token_s=0.05,
    ),
)
ANSWER = ChatCompletion(
    id="chatcmpl-1",
    created=1,
    model="m",
    choices=[
        Choice(
            index=0,
            message=ChatCompletionMessage(content="Hi"),
            finish_reason="stop",
            logprobs=None,
        )
    ],
    usage=USAGE,
)


def test_chat_completion_has_openais_shape() -> None:
    plain = json.loads(ANSWER.to_json())
    assert plain["object"] == "chat.completion"
    assert plain["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi"},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ]
    assert plain["usage"]["extra"]["decode_tokens_per_s"] == 20.0
    assert "system_fingerprint" not in plain
    assert msgspec.convert(plain, ChatCompletion) == ANSWER
    assert (ANSWER.object, ANSWER.choices[0].message.role) == ("chat.completion", "assistant")


def test_chunks_have_openais_shape() -> None:
    choice = ChunkChoice(index=0, delta=Delta(content="H"), finish_reason=None)
    chunk = ChatCompletionChunk(id="1", created=1, model="m", choices=[choice])
    assert chunk.to_dict()["choices"] == [
        {"index": 0, "delta": {"content": "H"}, "finish_reason": None}
    ]
    assert chunk.to_dict()["object"] == "chat.completion.chunk"


async def test_resources_pass_the_fields_on() -> None:
    text = Completion(
        id="1",
        created=1,
        model="m",
        choices=[CompletionChoice(index=0, text="x", finish_reason="length", logprobs=None)],
    )
    seen: list[object] = []

    class Engine:
        async def chat_completion(self, request: object) -> ChatCompletion:
            seen.append(request)
            return ANSWER

        async def completion(self, request: object) -> Completion:
            seen.append(request)
            return text

    engine = Engine()
    assert await Chat(engine).completions.create(messages=[], n=1) is ANSWER
    assert await Completions(engine).create(prompt="p") is text
    assert seen == [{"messages": [], "n": 1}, {"prompt": "p"}]


def test_model_dump_has_every_field_as_pydantics() -> None:
    dumped = ANSWER.model_dump()
    assert list(dumped) == [
        *("object", "id", "created", "model", "choices", "usage", "system_fingerprint")
    ]
    assert dumped["system_fingerprint"] is None
    assert dumped["choices"][0]["message"] == {
        "role": "assistant",
        "content": "Hi",
        "tool_calls": None,
    }
    assert msgspec.convert(dumped, ChatCompletion) == ANSWER
    assert ANSWER.model_dump(exclude_none=True) == ANSWER.to_dict() | {
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi"},
                "finish_reason": "stop",
            }
        ]
    }
    assert json.loads(ANSWER.model_dump_json(indent=2)) == dumped
    assert "\n" not in ANSWER.model_dump_json()


def test_a_repr_is_short() -> None:
    long = msgspec.structs.replace(
        ANSWER,
        choices=[
            Choice(
                index=i,
                message=ChatCompletionMessage(content="la " * 1000),
                finish_reason="stop",
                logprobs=None,
            )
            for i in range(100)
        ],
    )
    assert repr(USAGE) == "CompletionUsage(3 + 2 = 5 tokens)"
    assert "content='Hi'" in repr(ANSWER)
    assert len(repr(long)) < 800
    assert "100 in all" in repr(long)
    embedded = CreateEmbeddingResponse(
        data=[Embedding(index=0, embedding=[0.1] * 384)],
        model="m",
        usage=EmbeddingUsage(prompt_tokens=1, total_tokens=1),
    )
    assert "embedding=[0.1, 0.1, 0.1, ...]" in repr(embedded)


def test_notebooks_show_answers_as_markdown() -> None:
    assert ANSWER._repr_markdown_() == "Hi"
    both = msgspec.structs.replace(ANSWER, choices=ANSWER.choices * 2)
    assert both._repr_markdown_() == "Hi\n\n---\n\nHi"
    text = Completion(
        id="1",
        created=1,
        model="m",
        choices=[CompletionChoice(index=0, text="**on**", finish_reason=None, logprobs=None)],
    )
    assert text._repr_markdown_() == "**on**"


def test_keyword_arguments_have_the_names_of_the_requests() -> None:
    for kind, fields in (
        (ChatCompletionRequest, ChatCompletionFields),
        (CompletionRequest, CompletionFields),
        (EmbeddingRequest, EmbeddingFields),
    ):
        theirs = {*kind.__struct_fields__} - {"stream"}
        ours = {*fields.__annotations__} - {"max_completion_tokens"}
        assert ours == theirs
