"""Python in a page of plain Pyodide with the wheel from micropip, without scripts of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.async_api import Page

import webllm
from browser.conftest import RunPython
from browser.python_sites import example_site
from browser.site_server import SiteServer

SETUP = """
import asyncio, json
from js import Worker
from webllm import AppConfig, MLCEngine, MLCEngineConfig, ModelRecord, create_web_worker_mlc_engine
from webllm.api.interface import MLCEngineInterface

record = ModelRecord(model="/models/smollm2.gguf", model_id="smollm2")
catalogue = AppConfig(model_list=(record,))
COLOURS = {
    "messages": [{"role": "user", "content": "Name three colours."}],
    "temperature": 0,
    "max_tokens": 12,
}

def text_of(reply):
    return reply.choices[0].message.content

async def error_of(call):
    try:
        await call
    except Exception as error:
        return type(error).__name__
"""
WORKER = """
worker = Worker.new("/tests/counting_worker.js", type="module")
engine = await create_web_worker_mlc_engine(
    worker, "smollm2", MLCEngineConfig(app_config=catalogue)
)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteServer]:
    with example_site(tmp_path_factory.mktemp("site")) as server:
        yield server


@pytest.fixture
async def python(page: Page, site: SiteServer, run_python: RunPython) -> RunPython:
    """Runs code in the page, after SETUP."""
    await page.goto(f"{site.url}/tests/plain.html")
    await run_python(SETUP)
    return run_python


@pytest.fixture
async def in_front(python: RunPython) -> RunPython:
    """Runs code that sees `engine`, a proxy of counting_worker.js."""
    await python(WORKER)
    return python


async def test_a_handler_of_workers_is_refused(python: RunPython) -> None:
    refused = await python("""
        from webllm import WebWorkerMLCEngineHandler

        async def make():
            WebWorkerMLCEngineHandler()

        await error_of(make())
    """)
    assert refused == "NonWorkerEnvironmentError"


async def test_the_engine_in_the_page_itself(python: RunPython) -> None:
    text = await python("""
        engine = MLCEngine(MLCEngineConfig(app_config=catalogue))
        await engine.reload("smollm2")
        text_of(await engine.chat.completions.create(**COLOURS))
    """)
    assert "Red" in text


async def test_every_name_is_there(python: RunPython) -> None:
    version, in_browsers, missing = json.loads(
        await python("""
            import webllm
            names = {}
            exec("from webllm import *", names)
            missing = sorted(set(webllm.__all__) - names.keys())
            json.dumps([webllm.__version__, "WebWorkerMLCEngine" in names, missing])
        """)
    )
    assert (version, in_browsers, missing) == (webllm.__version__, True, [])


async def test_a_long_prompt_lets_others_have_their_turn(python: RunPython) -> None:
    """Others run while the prompt is tokenized, tens of thousands of tokens until it is refused."""
    num_turns, error = json.loads(
        await python("""
            engine = MLCEngine(MLCEngineConfig(app_config=catalogue))
            await engine.reload("smollm2")
            num_turns = 0

            async def take_turns():
                global num_turns
                while True:
                    await asyncio.sleep(0)
                    num_turns += 1

            others = asyncio.create_task(take_turns())
            messages = [{"role": "user", "content": "数据" * 30000}]
            error = await error_of(engine.chat.completions.create(messages=messages))
            others.cancel()
            json.dumps([num_turns, error])
        """)
    )
    assert error == "ContextLengthError"
    assert num_turns > 20


async def test_webgpu_without_our_boot_script(python: RunPython) -> None:
    text = await python("""
        engine = MLCEngine(MLCEngineConfig(app_config=catalogue, device="webgpu"))
        await engine.reload("smollm2")
        reply = await engine.completions.create(prompt="1, 2, 3,", temperature=0, max_tokens=3)
        reply.choices[0].text
    """)
    assert text.startswith(" 4")


async def test_the_whole_interface_in_front_of_a_worker(in_front: RunPython) -> None:
    names = "[n for n in MLCEngineInterface.__protocol_attrs__ if not hasattr(engine, n)]"
    assert await in_front(f"len(MLCEngineInterface.__protocol_attrs__) > 10, {names} == []")
    answers: dict[str, Any] = json.loads(
        await in_front("""
            first = await engine.chat.completions.create(**COLOURS)
            more = await engine.completions.create(prompt="1, 2, 3,", temperature=0, max_tokens=3)
            answers = {
                "chat": text_of(first),
                "message": await engine.get_message(),
                "completion": more.choices[0].text,
                "stats": await engine.runtime_stats_text(),
                "vendor": await engine.get_gpu_vendor(),
                "binding": await engine.get_max_storage_buffer_binding_size(),
                "forwarded": await engine.forward_tokens_and_sample([1, 2, 3], True),
                "embedding": await error_of(engine.embeddings.create(input="a")),
                "request": await error_of(engine.chat.completions.create(messages=[])),
                "unknown": await error_of(engine.reload("no-such-model")),
            }
            await engine.reload("smollm2")
            await engine.reset_chat()
            await engine.unload()
            answers["unloaded"] = await error_of(engine.chat.completions.create(**COLOURS))
            json.dumps(answers)
        """)
    )
    assert "Red" in answers["chat"]
    assert answers["completion"].startswith(" 4")
    assert "decoding" in answers["stats"]
    assert isinstance(answers["vendor"], str)
    assert answers["binding"] > 1 << 20
    assert isinstance(answers["forwarded"], int)
    assert answers["request"] == "RequestError"
    assert answers["unknown"] == "ModelNotFoundError"
    assert answers["embedding"] == "ModelNotLoadedError"
    assert answers["unloaded"] == "WorkerEngineModelNotLoadedError"


async def test_requests_at_once(in_front: RunPython) -> None:
    """Streams of one worker run side by side."""
    order, texts = json.loads(
        await in_front("""
            order = []

            async def ask(name, question):
                messages = [{"role": "user", "content": question}]
                stream = await engine.chat.completions.create(
                    messages=messages, temperature=0, max_tokens=12, stream=True
                )
                text = ""
                async for chunk in stream:
                    order.append(name)
                    text += chunk.choices[0].delta.content or ""
                return text

            texts = await asyncio.gather(
                ask("a", "Name three colours."), ask("b", "What is 2+2?"), ask("c", "Say hello.")
            )
            json.dumps(["".join(order), texts])
        """)
    )
    assert "Red" in texts[0]
    assert len(set(texts)) == 3
    first_ended = min(order.rindex(name) for name in "abc")
    assert all(order.index(name) < first_ended for name in "abc"), order


async def test_a_cancelled_stream_stops_the_work(in_front: RunPython) -> None:
    going_on, after = json.loads(
        await in_front("""
            async def growth():
                before = await engine.custom_request("count")
                await asyncio.sleep(1)
                return await engine.custom_request("count") - before

            stream = await engine.chat.completions.create(
                **COLOURS | {"max_tokens": 4000}, ignore_eos=True, stream=True
            )
            await anext(stream)
            going_on = await growth()
            await stream.aclose()
            await growth()  # a step that had begun may end
            json.dumps([going_on, await growth()])
        """)
    )
    assert going_on > 0
    assert after == 0


async def test_the_page_asks_to_keep_what_is_stored(python: RunPython) -> None:
    error, *asked = json.loads(
        await python("""
            from js import StorageManager
            from pyodide.ffi import create_proxy

            asked = []
            StorageManager.prototype.persist = create_proxy(lambda: asked.append("persist"))
            worker = Worker.new("/worker.js", type="module")
            config = MLCEngineConfig(app_config=catalogue)
            error = await error_of(create_web_worker_mlc_engine(worker, "no-such-model", config))
            json.dumps([error, *asked])
        """)
    )
    assert error == "ModelNotFoundError"
    assert asked == ["persist"]


async def test_logit_processors_of_the_worker_script(in_front: RunPython) -> None:
    usual, forced = json.loads(
        await in_front("""
            usual = text_of(await engine.chat.completions.create(**COLOURS))
            await engine.custom_request("only", 260)
            forced = text_of(await engine.chat.completions.create(**COLOURS))
            json.dumps([usual, forced])
        """)
    )
    assert "Red" in usual
    assert len(forced) > 1
    assert len(set(forced.split())) == 1, forced


async def test_a_worker_made_anew_loads_its_model_again(python: RunPython) -> None:
    """Calls that wait for a terminated worker raise; the next request needs no `reload`."""
    lost, text, phases = json.loads(
        await python("""
            workers, phases = [], []

            def make():
                workers.append(Worker.new("/worker.js", type="module"))
                return workers[-1]

            config = MLCEngineConfig(
                app_config=catalogue,
                init_progress_callback=lambda report: phases.append(report.phase),
            )
            engine = await create_web_worker_mlc_engine(make, "smollm2", config)
            phases.clear()
            asking = asyncio.create_task(error_of(engine.chat.completions.create(
                **COLOURS | {"max_tokens": 4000}, ignore_eos=True
            )))
            await asyncio.sleep(1)
            workers[0].terminate()
            lost = await asyncio.wait_for(asking, 60)
            await engine.restart()
            text = text_of(await engine.chat.completions.create(**COLOURS))
            json.dumps([lost, text, sorted(set(phases))])
        """)
    )
    assert lost == "WorkerLostError"
    assert "Red" in text
    assert phases == ["compile", "upload"]  # nothing was fetched again


async def test_a_worker_whose_script_does_not_load(python: RunPython) -> None:
    """The browser's event then has no message."""
    said = await python("""
        from js import URL, Blob, Object
        from pyodide.ffi import to_js
        of_type = to_js({"type": "text/javascript"}, dict_converter=Object.fromEntries)
        url = URL.createObjectURL(Blob.new(to_js(["import ("]), of_type))
        worker = Worker.new(url, type="module")
        try:
            await create_web_worker_mlc_engine(worker, "smollm2")
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        said
    """)
    assert "WorkerLostError" in said
    assert "its script failed: it could not be loaded" in said
