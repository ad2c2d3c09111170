"""Every example runs, on a fake engine, and is short."""

import runpy
from pathlib import Path

import pytest
from cli_fakes import FakeEngine

import webllm

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
SAID = {
    "chat": "And of Italy?\n  Message 4: And of Italy?\n",
    "completion": "after Once upon a time\nlength\n",
    "stream": "Message 1: Write a haiku about rain. \n55.2 tokens per second\n",
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(
    example: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(webllm, "MLCEngine", FakeEngine, raising=False)
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out.endswith(SAID[example.stem])
    assert len(example.read_text().splitlines()) < 40
