"""The engine on both hosts: a browser's differs by the `Host` it is given."""

from __future__ import annotations

import asyncio
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_model import NumberModels, NumberTokenizer, make_loaded

from webllm import ChatOptions, MLCEngine
from webllm.artifacts.progress import InitProgressReport, Phase
from webllm.engine.background import Pauses
from webllm.engine.loaded_model import LoadedModel
from webllm.host import BROWSER, NATIVE, Host

STARTING = Path(__file__).parents[2] / "js" / "src" / "starting.ts"

on_both_hosts = pytest.mark.parametrize("host", [NATIVE, BROWSER], ids=["native", "browser"])


class ThreadNotingTokenizer(NumberTokenizer):
    def __init__(self) -> None:
        self.threads: set[threading.Thread] = set()

    def encode(
        self, text: str, *, parse_special: bool = False, add_special: bool = True
    ) -> list[int]:
        self.threads.add(threading.current_thread())
        return super().encode(text)


@on_both_hosts
async def test_a_long_prompt_is_encoded_in_a_thread_if_there_are_threads(host: Host) -> None:
    tokenizer = ThreadNotingTokenizer()
    loaded = make_loaded(options=ChatOptions(context_window_size=2048), host=host)
    engine = MLCEngine(models=[replace(loaded, tokenizer=tokenizer)], host=host)
    reply = await engine.completions.create(prompt="100 " * 1100, max_tokens=2)
    assert reply.choices[0].text == "101 102 "
    assert (threading.current_thread() in tokenizer.threads) is not host.has_threads


@on_both_hosts
async def test_only_a_browser_waits_for_messages(host: Host) -> None:
    arrived: list[str] = []
    asyncio.get_running_loop().call_soon(arrived.append, "message")
    await Pauses(host).pause()
    assert bool(arrived) is host.is_browser


@on_both_hosts
async def test_progress_counts_the_start_of_python(host: Host) -> None:
    reports: list[InitProgressReport] = []

    async def load_model(record: Any, options: Any, config: Any, host: Host) -> LoadedModel:
        config.init_progress_callback(InitProgressReport(0.0, 0.0, "begins", Phase.FETCH))
        return await NumberModels().load(record, options, config, host)

    await MLCEngine(load_model=load_model, host=host).reload("m.gguf", on_progress=reports.append)
    assert reports[0].progress == host.load_start


def test_typescript_reports_the_share_of_a_load_that_python_counts_as_done() -> None:
    [share] = re.findall(r"^const SHARE = ([\d.]+);", STARTING.read_text(), re.MULTILINE)
    assert float(share) == BROWSER.load_start
