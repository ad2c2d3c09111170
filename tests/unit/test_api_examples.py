"""Every example is short and runs, on an engine that echoes or on a model of letters."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from cli_fakes import FakeEngine
from fake_model import NumberModels, NumberTokenizer
from fake_worker import Worker

import webllm
from webllm.engine import loading
from webllm.workers.proxy import WorkerMLCEngine

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
SAID = {
    "at_once": "What colour is the sky?\n  Message 1: What colour is the sky?\n"
    "How many legs has a spider?\n  Message 1: How many legs has a spider?\n"
    "Is ice cold?\n  Message 1: Is ice cold?\n",
    "chat": "And of Italy?\n  Message 4: And of Italy?\n",
    "completion": "after Once upon a time\nlength\n",
    "stream": "Message 1: Write a haiku about rain. \n55.2 tokens per second\n",
}
SAID_IN_LETTERS = {
    "blocking": "@ABCDEFGHI",
    "openai_client": "/0123456789:;<=>?@ABC",
    "logit_processor": "/0123456789:;<=>?@ABCDEFGHIJKL\n",
    "worker_process": "\n/0123456789:;<=>?@ABC",
}


class LetterTokenizer(NumberTokenizer):
    """A tokenizer with one token per character."""

    def encode(
        self, text: str, *, parse_special: bool = False, add_special: bool = True
    ) -> list[int]:
        return list(map(ord, text))

    def token_bytes(self, token_id: int) -> bytes:
        return chr(token_id).encode()


async def create_worker_here(model_id: str) -> WorkerMLCEngine:
    """Does as `create_worker_process`, without a process."""
    engine = WorkerMLCEngine(Worker(NumberModels(LetterTokenizer()).load).port)
    await engine.reload(model_id)
    return engine


def test_every_example_is_run() -> None:
    assert {example.stem for example in EXAMPLES} == {*SAID, *SAID_IN_LETTERS}
    assert all(len(example.read_text().splitlines()) < 40 for example in EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(
    example: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(loading, "load_model", NumberModels(LetterTokenizer()).load)
    monkeypatch.setattr(webllm, "create_worker_process", create_worker_here, raising=False)
    if example.stem in SAID:
        monkeypatch.setattr(webllm, "MLCEngine", FakeEngine, raising=False)
    runpy.run_path(str(example), run_name="__main__")
    said = capsys.readouterr().out
    if example.stem in SAID:
        assert said.endswith(SAID[example.stem])
    else:
        assert said.lstrip(".").startswith(SAID_IN_LETTERS[example.stem])  # a dot each 0.1 s
