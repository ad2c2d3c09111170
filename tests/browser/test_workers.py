"""The engine in a Web Worker, called by the npm package and by our own proxy."""

from __future__ import annotations

import pytest
from playwright.async_api import Page

from browser.conftest import RunPython

NPM_CLIENT = "/node_modules/@mlc-ai/web-llm/lib/index.js"
OUR_CLIENT = "/client.js"
WORKER = "/worker.js"
ENGINE = """
async ([client, script]) => {
  const webllm = await import(client);
  window.reports = [];
  const record = { model: "/models/smollm2.gguf", model_id: "smollm2", model_lib: "" };
  window.engine = await webllm.CreateWebWorkerMLCEngine(
    new Worker(script, { type: "module" }),
    "smollm2",
    {
      appConfig: { model_list: [record] },
      initProgressCallback: (report) => window.reports.push(report.progress),
    },
  );
}
"""
COLOURS = {
    "messages": [{"role": "user", "content": "Name three colours."}],
    "temperature": 0,
    "max_tokens": 16,
}


@pytest.fixture
async def npm_page(page: Page) -> Page:
    """Opens a page whose `engine` is `@mlc-ai/web-llm`'s proxy of our worker."""
    await page.evaluate(ENGINE, [NPM_CLIENT, WORKER])
    return page


async def test_the_npm_client_chats(npm_page: Page) -> None:
    reports = await npm_page.evaluate("reports")
    assert reports == sorted(reports)
    assert (len(reports) > 3, reports[-1]) == (True, 1)
    reply = await npm_page.evaluate("request => engine.chat.completions.create(request)", COLOURS)
    text = reply["choices"][0]["message"]["content"]
    assert "Red" in text
    assert await npm_page.evaluate("engine.getMessage()") == text
    assert "decoding" in await npm_page.evaluate("engine.runtimeStatsText()")
    streamed = await npm_page.evaluate(
        """async (request) => {
            const stream = await engine.chat.completions.create({ ...request, stream: true });
            const pieces = [];
            for await (const chunk of stream) pieces.push(chunk.choices[0]?.delta.content ?? "");
            return pieces;
        }""",
        COLOURS,
    )
    assert len(streamed) > 3
    assert "".join(streamed) == text


async def test_the_npm_client_interrupts(npm_page: Page) -> None:
    reason = await npm_page.evaluate(
        """async (request) => {
            const long = { ...request, max_tokens: 4000, stream: true, ignore_eos: true };
            let count = 0, reason = null;
            for await (const chunk of await engine.chat.completions.create(long)) {
                if (++count === 5) engine.interruptGenerate();
                reason = chunk.choices[0]?.finish_reason ?? reason;
            }
            return reason;
        }""",
        COLOURS,
    )
    assert reason == "abort"


async def test_leaving_a_loop_of_the_npm_client_ends_the_answer(page: Page) -> None:
    """The next answer then runs alone, after the step in flight."""
    await page.evaluate(ENGINE, [NPM_CLIENT, "/tests/tallying_worker.js"])
    num_drawn, num_said = await page.evaluate(
        """async (request) => {
            const count = () => engine.getPromise({
                kind: "customRequest",
                uuid: crypto.randomUUID(),
                content: { requestName: "count" },
            });
            const long = { ...request, max_tokens: 4000, stream: true, ignore_eos: true };
            for (let turn = 0; turn < 12; turn += 1) {
                for await (const chunk of await engine.chat.completions.create(long)) {
                    if (chunk.choices[0]?.delta.content) break;
                }
            }
            const before = await count();
            const reply = await engine.chat.completions.create(request);
            return [(await count()) - before, reply.usage.completion_tokens];
        }""",
        COLOURS,
    )
    assert num_said == COLOURS["max_tokens"]
    assert num_drawn - num_said in (0, 1)


async def test_the_npm_client_gets_errors(npm_page: Page) -> None:
    message = await npm_page.evaluate(
        "engine.embeddings.create({ input: 'a' }).then(() => '', (error) => String(error))"
    )
    assert "no embedding model" in message


@pytest.mark.parametrize("client", [NPM_CLIENT, OUR_CLIENT])
async def test_a_wrong_catalogue_fails_the_load(page: Page, client: str) -> None:
    """The npm client throws, uncaught, on messages that it does not know; there are none."""
    said = await page.evaluate(
        """async ([client, script]) => {
            const webllm = await import(client);
            const said = [];
            window.addEventListener("error", ({ message }) => said.push(`uncaught ${message}`));
            const worker = new Worker(script, { type: "module" });
            const record = { model: "/models/smollm2.gguf", model_id: "smollm2", model_lib: "" };
            const models = { model_list: [record] };
            const engine = new webllm.WebWorkerMLCEngine(worker, { appConfig: models });
            for (const wrong of [
                { cacheBackend: "bogus" },
                { cacheBackend: "cross-origin" },
                { cacheBackend: "opfs", opfsAccessMode: "sync" },
            ]) {
                engine.setAppConfig({ ...models, ...wrong });
                await engine.reload("smollm2").catch((error) => said.push(String(error)));
            }
            engine.setAppConfig(models);
            await engine.reload("smollm2");
            return said;
        }""",
        [client, WORKER],
    )
    assert [each.split(":")[0] for each in said] == ["ConfigError"] * 3
    assert "bogus" in said[0]
    assert "cross-origin" in said[1]
    assert "sync" in said[2]


@pytest.mark.parametrize("client", [NPM_CLIENT, OUR_CLIENT])
async def test_a_token_with_a_bias_no_longer_comes(page: Page, client: str) -> None:
    await page.evaluate(ENGINE, [client, WORKER])
    assert " Red" in await tokens(page, {})
    without = await tokens(page, {"3950": -100})  # " Red"
    assert len(without) == COLOURS["max_tokens"]
    assert " Red" not in without
    assert " Red" in await tokens(page, {"3951": -100})


async def tokens(page: Page, bias: dict[str, float]) -> list[str]:
    """Returns the pieces of an answer with that `logit_bias`."""
    request = {**COLOURS, "logit_bias": bias, "logprobs": True}
    reply = await page.evaluate("request => engine.chat.completions.create(request)", request)
    pieces: list[str] = [each["token"] for each in reply["choices"][0]["logprobs"]["content"]]
    return pieces


async def test_python_in_front_of_a_worker(run_python: RunPython) -> None:
    """Runs two streams at once, raises typed errors, and loses its worker."""
    await run_python("""
        import asyncio, js
        from webllm import AppConfig, MLCEngineConfig, ModelRecord
        from webllm.workers.browser import create_web_worker_mlc_engine

        options = js.Object.fromEntries([["type", "module"]])
        worker = js.Worker.new("/worker.js", options)
        record = ModelRecord(model="/models/smollm2.gguf", model_id="smollm2")
        config = MLCEngineConfig(app_config=AppConfig(model_list=(record,)))
        engine = await create_web_worker_mlc_engine(worker, "smollm2", config)
    """)
    texts = await run_python("""
        async def ask(question):
            messages = [{"role": "user", "content": question}]
            stream = await engine.chat.completions.create(
                messages=messages, temperature=0, max_tokens=12, stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        "|".join(await asyncio.gather(ask("Name three colours."), ask("What is 2+2?")))
    """)
    first, second = texts.split("|")
    assert "Red" in first
    assert second
    assert second != first
    assert "CPU" in await run_python("await engine.device_name()")
    name = await run_python("""
        async def error_of(call):
            try:
                await call
            except Exception as error:
                return type(error).__name__

        await error_of(engine.chat.completions.create(messages=[], temperature=0))
    """)
    assert name == "RequestError"
    assert (
        await run_python("await engine.close(); await error_of(engine.runtime_stats_text())")
        == "WorkerLostError"
    )
