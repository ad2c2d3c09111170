"""The port between a page and a worker: order, locks, and values that JSON cannot express."""

from __future__ import annotations

import pytest
from playwright.async_api import Page

from browser.conftest import RunPython

WORKER = """
() => {
  window.worker = new Worker("/tests/tallying_worker.js", { type: "module" });
  window.answers = [];
  window.waiting = new Map();
  worker.addEventListener("message", ({ data }) => {
    answers.push(data);
    if (data.kind !== "initProgressCallback") waiting.get(data.uuid)?.(data);
  });
  window.ask = (kind, uuid, content = null) => {
    const answer = new Promise((resolve) => waiting.set(uuid, resolve));
    worker.postMessage({ kind, uuid, content });
    return answer;
  };
  window.echo = (uuid, requestMessage) =>
    ask("customRequest", uuid, { requestName: "echo", requestMessage });
}
"""


@pytest.fixture
async def raw(page: Page) -> Page:
    """In the page, `ask(kind, uuid, content)` awaits a reply, and `answers` lists all messages."""
    await page.evaluate(WORKER)
    return page


async def test_nothing_overtakes_a_hello_and_a_worker_holds_one_lock(raw: Page) -> None:
    order = await raw.evaluate(
        """async () => {
            const asked = ["hello a", "1", "hello b", "2"].map((name) =>
                name.startsWith("hello") ? ask("hello", name) : echo(name, name));
            await Promise.all(asked);
            await Promise.all([ask("hello", "hello c"), echo("3", "3")]);
            return answers.map(({ uuid }) => uuid);
        }"""
    )
    assert order[0] == "hello a"
    assert sorted(order) == ["1", "2", "3", "hello a", "hello b", "hello c"]
    assert order.index("1") < order.index("2")
    locks, held = await raw.evaluate(
        """async () => [
            answers.filter(({ uuid }) => uuid.startsWith("hello")).map((each) => each.content.lock),
            (await navigator.locks.query()).held.map(({ name }) => name),
        ]"""
    )
    assert len(set(locks)) == 1
    assert held == locks[:1]
    await raw.evaluate(
        "(lock) => { worker.terminate(); return navigator.locks.request(lock, () => {}); }",
        locks[0],
    )


async def test_messages_that_are_no_plain_data_are_thrown_back(raw: Page) -> None:
    errors = await raw.evaluate(
        """async () => {
            const ring = {};
            ring.ring = ring;
            let deep = [];
            for (let i = 0; i < 500; i += 1) deep = [deep];
            const brackets = "[".repeat(1000);
            const half = "\\u{1F600}".slice(0, 1);
            const said = await Promise.all([ring, 5n, half, deep].map((each, i) =>
                echo(String(i), each)));
            const text = await echo("text", [brackets, Array(1000).fill([])]);
            const names = said.map(({ kind, error }) => `${kind} ${error?.name}`);
            return [...names, text.content[0] === brackets];
        }"""
    )
    assert errors == [*["throw RequestError"] * 4, True]
    said = await raw.evaluate("echo('still', 'there')")
    assert said["content"] == "there"


async def test_malformed_requests_do_not_harm_a_worker_that_starts(raw: Page) -> None:
    """JavaScript reads them as well before Python has started."""
    thrown = await raw.evaluate(
        """async () => {
            for (const other of ["text", null, 5, { kind: "reload" }]) worker.postMessage(other);
            const reload = ask("reload", "r");
            worker.postMessage({ kind: "setAppConfig", uuid: "s", content: { models: 1 } });
            const next = ask("reload", "n", { modelId: ["smollm2"] });
            return [(await reload).error.name, (await next).error.name];
        }"""
    )
    assert thrown == ["RequestError", "ConfigError"]


async def test_our_client_learns_that_its_worker_was_terminated(page: Page) -> None:
    name = await page.evaluate(
        """async () => {
            const { WebWorkerMLCEngine } = await import("/client.js");
            const worker = new Worker("/tests/tallying_worker.js", { type: "module" });
            const engine = new WebWorkerMLCEngine(worker);
            await engine.customRequest("echo", 1);
            const waiting = engine.customRequest("never").catch((error) => error.name);
            worker.terminate();
            return waiting;
        }"""
    )
    assert name == "WorkerLostError"


async def test_our_client_throws_what_is_wrong_with_a_catalogue(page: Page) -> None:
    name, message = await page.evaluate(
        """async () => {
            const { CreateWebWorkerMLCEngine } = await import("/client.js");
            const worker = new Worker("/tests/tallying_worker.js", { type: "module" });
            const appConfig = { model_list: [], cacheBackend: "bogus" };
            return CreateWebWorkerMLCEngine(worker, "smollm2", { appConfig })
                .catch((error) => [error.name, error.message]);
        }"""
    )
    assert name == "ConfigError"
    assert "bogus" in message


async def test_python_reads_what_it_can_and_fails_the_rest(run_python: RunPython) -> None:
    names = await run_python("""
        import asyncio, js
        from webllm.errors import WebLLMError
        from webllm.workers.browser import BrowserPort
        from webllm.workers.proxy import WorkerMLCEngine

        script = '''
            onmessage = ({ data: { kind, uuid } }) => {
                postMessage(undefined);
                postMessage(5n);
                if (kind === "getMessage") postMessage({ kind: "return", uuid, content: 5n });
                if (kind === "runtimeStatsText") postMessage({ kind: "return", uuid: 5n });
            };
        '''
        def new_worker():
            return js.Worker.new("data:text/javascript," + js.encodeURIComponent(script))

        async def error_of(call):
            try:
                await call
            except WebLLMError as error:
                return type(error).__name__

        worker = new_worker()
        engine = WorkerMLCEngine(BrowserPort(worker, worker.terminate))
        names = [await error_of(engine.get_message()), await error_of(engine.runtime_stats_text())]
        worker = new_worker()
        port = BrowserPort(worker, worker.terminate)
        await port.close()
        port.listen(lambda message: None, names.append)
        "|".join(names)
    """)
    assert names.split("|") == ["WebLLMError", "WorkerLostError", "the port was closed"]


async def test_a_stream_that_python_drops_in_a_browser_is_ended_in_the_worker(
    run_python: RunPython,
) -> None:
    kinds = await run_python("""
        import gc, js
        from webllm.workers.browser import BrowserPort
        from webllm.workers.proxy import WorkerMLCEngine

        script = '''
            const kinds = [];
            const chunk = { id: "1", created: 1, model: "m", choices: [] };
            const ANSWERS = {
                hello: { protocol: 2 },
                completionStreamNextChunk: chunk,
                customRequest: kinds,
            };
            onmessage = ({ data: { kind, uuid } }) => {
                kinds.push(kind);
                if (kind === "abort") return;
                postMessage({ kind: "return", uuid, content: ANSWERS[kind] ?? null });
            };
        '''
        worker = js.Worker.new("data:text/javascript," + js.encodeURIComponent(script))
        engine = WorkerMLCEngine(BrowserPort(worker, worker.terminate))
        stream = await engine.completions.create(prompt="1", stream=True)
        await anext(stream)
        del stream
        gc.collect()
        await engine.custom_request("kinds")  # the event loop has its turn
        "|".join(await engine.custom_request("kinds"))
    """)
    assert "abort" in kinds.split("|")
