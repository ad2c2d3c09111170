"""Prompts without tokens, with wrong or too many ones, and biases of unknown tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fake_model import VOCAB_SIZE, asked, backend_of, make_engine, make_loaded, num_used

from webllm import MLCEngine
from webllm.engine.chat_format import ChatFormat, ConvFormat, JinjaFormat
from webllm.errors import ContextLengthError, RequestError
from webllm.text.chat_template import ChatTemplate
from webllm.text.conv_template import conv_template_from_json

BARE_ROLES = {"user": "", "assistant": ""}
NO_SEPS = {"role_content_sep": "", "role_empty_sep": ""}


class TestNoTokens:
    @pytest.mark.parametrize("policy", ["error", "shift", "truncate_oldest_messages"])
    @pytest.mark.parametrize("stream", [False, True])
    async def test_messages_that_become_nothing(self, policy: str, stream: bool) -> None:
        engine = make_engine(context_overflow=policy)
        with pytest.raises(RequestError, match="prompt of no tokens") as caught:
            await engine.chat.completions.create(**asked("", stream=stream))
        assert caught.value.field == "messages"
        assert num_used(engine) == 0

    @pytest.mark.parametrize(
        "chat_format",
        [
            ConvFormat(conv_template_from_json({"roles": BARE_ROLES, "seps": [""], **NO_SEPS})),
            JinjaFormat(ChatTemplate("{{ messages[0].content }}")),
        ],
    )
    async def test_templates_that_write_nothing_of_their_own(self, chat_format: ChatFormat) -> None:
        engine = MLCEngine(models=[replace(make_loaded(), chat_format=chat_format)])
        with pytest.raises(RequestError, match="prompt of no tokens"):
            await engine.chat.completions.create(**asked(""))
        reply = await engine.chat.completions.create(**asked("1", max_tokens=1))
        assert reply.choices[0].message.content == "2 "

    @pytest.mark.parametrize("fields", [{}, {"echo": True}, {"n": 3}])
    async def test_an_empty_prompt(self, fields: dict[str, Any]) -> None:
        with pytest.raises(RequestError, match="the prompt is empty") as caught:
            await make_engine().completions.create(prompt="", **fields)
        assert caught.value.field == "prompt"

    async def test_forwarding_nothing(self) -> None:
        with pytest.raises(RequestError, match="input_ids is empty") as caught:
            await make_engine().forward_tokens_and_sample([], True)
        assert caught.value.field == "input_ids"

    async def test_other_requests_go_on(self) -> None:
        engine = make_engine(windows=4)
        stream = await engine.chat.completions.create(**asked("1", stream=True, max_tokens=50))
        said = [(await anext(stream)).choices[0].delta.content]
        with pytest.raises(RequestError):
            await engine.chat.completions.create(**asked(""))
        said += [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(said).split() == [str(i) for i in range(2, 52)]


class TestWrongTokens:
    @pytest.mark.parametrize("wrong", [VOCAB_SIZE, -1, 2**32, 2**70])
    async def test_tokens_that_do_not_exist(self, wrong: int) -> None:
        engine = make_engine()
        with pytest.raises(RequestError, match=f"has token {wrong}, the model knows 1000"):
            await engine.chat.completions.create(**asked(f"1 {wrong}"))
        with pytest.raises(RequestError, match=f"has token {wrong}"):
            await engine.forward_tokens_and_sample([1, wrong], True)

    @pytest.mark.parametrize("wrong", [1.5, "1", None, float("nan")])
    async def test_what_is_no_token(self, wrong: Any) -> None:
        with pytest.raises(RequestError, match="input_ids must be token ids"):
            await make_engine().forward_tokens_and_sample([1, wrong], True)


class TestTooManyTokens:
    """An error suggests only ways out that the request has not taken yet."""

    async def test_of_messages(self) -> None:
        with pytest.raises(ContextLengthError, match='"shift" or "truncate_oldest_messages"'):
            await make_engine().chat.completions.create(**asked("1 " * 300))

    async def test_of_one_message_that_nothing_can_be_left_out_for(self) -> None:
        engine = make_engine(context_overflow="truncate_oldest_messages")
        with pytest.raises(ContextLengthError, match="last user turn alone") as caught:
            await engine.chat.completions.create(**asked("1 " * 300))
        assert "truncate_oldest_messages" not in str(caught.value)
        assert 'context_overflow "shift"' in str(caught.value)

    @pytest.mark.parametrize("policy", ["error", "truncate_oldest_messages"])
    async def test_of_a_prompt(self, policy: str) -> None:
        with pytest.raises(ContextLengthError, match='context_overflow "shift"') as caught:
            await make_engine(context_overflow=policy).completions.create(prompt="1 " * 300)
        assert "truncate_oldest_messages" not in str(caught.value)


class TestBiases:
    @pytest.mark.parametrize(
        "logit_bias",
        [
            {"50256": -100},  # as the field's documentation says
            {1000: -0.5, "2000000000000": 0},
            {VOCAB_SIZE: 0.0, 5: 3.0},
        ],
    )
    async def test_a_ban_of_a_token_that_does_not_exist_changes_nothing(
        self, logit_bias: dict[str | int, float]
    ) -> None:
        engine = make_engine()
        reply = await engine.chat.completions.create(
            **asked("1", max_tokens=1, logit_bias=logit_bias)
        )
        assert reply.choices[0].message.content == "2 "
        words = backend_of(engine).steps[-1].sequences[0].edits
        assert all(token_id < VOCAB_SIZE for token_id in words[::3])

    @pytest.mark.parametrize("bias", [0.5, 100])
    async def test_what_would_force_one_is_refused(self, bias: float) -> None:
        with pytest.raises(RequestError, match="asks for token 50256") as caught:
            await make_engine().chat.completions.create(**asked("1", logit_bias={"50256": bias}))
        assert caught.value.field == "logit_bias"

    async def test_negative_ids_are_refused(self) -> None:
        with pytest.raises(RequestError, match="-1"):
            await make_engine().chat.completions.create(**asked("1", logit_bias={"-1": -100}))


async def test_choices_draw_with_their_own_seeds_and_are_otherwise_alike() -> None:
    engine = make_engine(windows=4)
    fields = {"n": 3, "seed": 7, "temperature": 0.5, "max_tokens": 1}
    await engine.chat.completions.create(**asked("1", **fields))
    steps = backend_of(engine).steps
    drawn = [share.sampling for step in steps for share in step.sequences]
    assert len({sampling.seed for sampling in drawn}) == 3
    assert len({replace(sampling, seed=0) for sampling in drawn}) == 1
