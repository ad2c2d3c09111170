"""Responses: their JSON is OpenAI's; resources pass fields on as they are."""

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
