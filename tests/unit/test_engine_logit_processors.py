"""Logit processors change the logits of every draw, in Python."""

from __future__ import annotations

from collections.abc import Callable, MutableSequence
from typing import Any

import pytest
from fake_model import VOCAB_SIZE, NumberModels, asked, counted, num_used

from webllm import MLCEngine, MLCEngineConfig
from webllm.config import LogitProcessor
from webllm.errors import LogitProcessorError

Logits = MutableSequence[float]


class Processor:
    """Records its calls; `change` is applied to the logits."""

    def __init__(self, change: Callable[[Logits], Any] = lambda logits: logits) -> None:
        self._change = change
        self.calls: list[str | int] = []

    def process_logits(self, logits: Logits) -> Logits:
        assert len(logits) == VOCAB_SIZE
        self.calls.append("logits")
        changed: Logits = self._change(logits)
        return changed

    def process_sampled_token(self, token: int) -> None:
        self.calls.append(token)

    def reset_state(self) -> None:
        self.calls.append("reset")


def ban_even(logits: Logits) -> Logits:
    """Bans even tokens in place; so the token after an odd one is the next odd one."""
    for token_id in range(0, VOCAB_SIZE, 2):
        logits[token_id] = -100.0
    return logits


def force_77(logits: Logits) -> list[float]:
    """Returns a new sequence that forces token 77."""
    return [100.0 if token_id == 77 else logit for token_id, logit in enumerate(logits)]


async def make_engine(processor: LogitProcessor, *models: str) -> MLCEngine:
    config = MLCEngineConfig(logit_processor_registry={"a": processor})
    return await NumberModels().engine_with(*(models or ["a.gguf"]), config=config)


async def test_logits_changed_in_place_are_sampled_from() -> None:
    engine = await make_engine(Processor(ban_even))
    reply = await engine.chat.completions.create(**asked("1", max_tokens=1))
    assert reply.choices[0].message.content == "1 "


async def test_logits_returned_as_a_list_are_sampled_from() -> None:
    engine = await make_engine(Processor(force_77))
    reply = await engine.chat.completions.create(**asked("1", max_tokens=3, logprobs=True))
    assert reply.choices[0].message.content == "77 77 77 "
    assert [entry.token for entry in reply.choices[0].logprobs.content] == ["77 "] * 3


async def test_one_that_changes_nothing_changes_nothing() -> None:
    engine = await make_engine(Processor())
    stream = await engine.chat.completions.create(**asked("1", max_tokens=70, stream=True))
    said = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(said) == counted(2, 71)


async def test_it_is_told_of_each_token_in_order() -> None:
    processor = Processor()
    engine = await make_engine(processor)
    for first in (1, 5):
        await engine.completions.create(prompt=str(first), max_tokens=2)
    assert processor.calls == [
        *("reset", "logits", 2, "logits", 3),
        *("reset", "logits", 6, "logits", 7),
    ]
    processor.calls.clear()
    await engine.reset_chat()
    assert processor.calls == ["reset"]
    await engine.forward_tokens_and_sample([8], True)
    assert processor.calls == ["reset", "logits", 9]


async def test_every_choice_passes_through_it() -> None:
    processor = Processor()
    engine = await make_engine(processor)
    reply = await engine.completions.create(prompt="1", max_tokens=2, n=3)
    assert [choice.text for choice in reply.choices] == ["2 3 "] * 3
    assert processor.calls.count("logits") == 6
    assert [call for call in processor.calls if isinstance(call, int)] == [2, 2, 2, 3, 3, 3]


async def test_other_models_have_none() -> None:
    processor = Processor(force_77)
    engine = await make_engine(processor, "a.gguf", "b.gguf")
    reply = await engine.completions.create(prompt="1", model="b", max_tokens=2)
    assert reply.choices[0].text == "2 3 "
    assert processor.calls == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda logits: 1 / 0, "process_logits failed: ZeroDivisionError"),
        (lambda logits: None, "process_logits failed: TypeError"),
        (lambda logits: logits[:-1], "returned 999 values of type 'f', expected 1000"),
        (lambda logits: ["a"] * VOCAB_SIZE, "process_logits failed: TypeError"),
    ],
)
async def test_a_failing_one_fails_the_answer_and_not_the_engine(
    change: Callable[[Logits], object], said: str
) -> None:
    processor = Processor(change)
    engine = await make_engine(processor)
    with pytest.raises(LogitProcessorError, match=said):
        await engine.chat.completions.create(**asked("1"))
    assert num_used(engine) == 0
    processor._change = force_77
    reply = await engine.completions.create(prompt="1", max_tokens=1)
    assert reply.choices[0].text == "77 "


@pytest.mark.parametrize("method", ["process_sampled_token", "reset_state"])
async def test_its_other_methods_fail_in_the_same_way(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = Processor()
    engine = await make_engine(processor)

    def fail(*_: object) -> None:
        raise ValueError("no")

    with monkeypatch.context() as patch:
        patch.setattr(processor, method, fail)
        with pytest.raises(LogitProcessorError, match=rf"Processor.{method} failed: ValueError"):
            await engine.completions.create(prompt="1", max_tokens=1)
    assert num_used(engine) == 0
    await engine.completions.create(prompt="1", max_tokens=1)
