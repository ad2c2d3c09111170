"""Fields of WebLLM's types that this package does not support are refused by name."""

from __future__ import annotations

import pytest

from webllm.api.validation import chat_completion_request
from webllm.errors import IntegrityError, RequestError
from webllm.workers.messages import Throw


def test_audio_is_refused_by_name() -> None:
    part = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    with pytest.raises(RequestError, match=r"messages\[0\].content\[0\] is audio; only text"):
        chat_completion_request({"messages": [{"role": "user", "content": [part]}]})


def test_a_structural_tag_is_refused_by_name() -> None:
    wanted = {"type": "structural_tag", "structural_tag": {"format": {}}}
    messages = [{"role": "user", "content": "Hello"}]
    with pytest.raises(RequestError, match="'structural_tag', which is not supported; give 'json"):
        chat_completion_request({"messages": messages, "response_format": wanted})


def test_an_integrity_error_crosses_with_its_hashes() -> None:
    wrong = IntegrityError("wrong", url="https://u", expected="a", actual="b")
    error = Throw.of(wrong, "1").rebuilt()
    assert isinstance(error, IntegrityError)
    assert (str(error), error.url, error.expected, error.actual) == ("wrong", "https://u", "a", "b")
