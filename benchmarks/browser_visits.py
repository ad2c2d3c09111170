"""Measures the time from navigation to the first token, on a first and on a second visit.

    python benchmarks/browser_visits.py [--model ID] [--visits 5] [--json]

Each round is a new browser profile: the first visit fetches the model from `webllm web`, the
second, in the same profile and a new browser process, reads it from the store. The page uses the
built site's client and worker.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.async_api import async_playwright

from webllm.cli.site_models import site_models
from webllm.cli.web import open_server
from webllm.config import DEFAULT_MODEL_ID

FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
VISIT = """
async (modelId) => {
  const marks = {};
  const mark = (name) => (marks[name] ??= performance.now() / 1000);
  const { WebWorkerMLCEngine } = await import("./client.js");
  const worker = new Worker("./worker.js", { type: "module" });
  const engine = new WebWorkerMLCEngine(worker, {
    initProgressCallback: ({ phase }) => mark(phase),
  });
  await engine.reload(modelId);
  mark("ready");
  const messages = [{ role: "user", content: "Name three colours." }];
  const stream = await engine.chat.completions.create({ messages, stream: true, max_tokens: 8 });
  for await (const chunk of stream) if (chunk.choices[0]?.delta.content) mark("first token");
  return marks;
}
"""

Marks = dict[str, float]


@contextmanager
def served(model: str) -> Iterator[str]:
    models = asyncio.run(site_models([model], lambda report: None))
    with open_server(models, 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.url
        server.shutdown()
        thread.join()


async def visit(url: str, model: str, profile: str) -> Marks:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "this needs Chromium: apt-get install chromium"
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            profile, executable_path=path, args=FLAGS
        )
        page = await context.new_page()
        await page.route("**/blank", lambda route: route.fulfill(body="", content_type="text/html"))
        await page.goto(f"{url}blank")
        marks: Marks = await page.evaluate(VISIT, model)
        await context.close()
    return marks


async def rounds(url: str, model: str, count: int) -> dict[str, list[Marks]]:
    visits: dict[str, list[Marks]] = {"first": [], "second": []}
    for _ in range(count):
        with tempfile.TemporaryDirectory() as profile:
            for each in visits.values():
                each.append(await visit(url, model, profile))
    return visits


def summary(visits: list[Marks]) -> dict[str, Any]:
    """Returns the median start of each phase in seconds, and the best time to the first token."""
    names = sorted(visits[0], key=visits[0].__getitem__)
    medians = {name: statistics.median(each[name] for each in visits) for name in names}
    return {**medians, "best first token": min(each["first token"] for each in visits)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL_ID)
    parser.add_argument("--visits", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with served(options.model) as url:
        visits = asyncio.run(rounds(url, options.model, options.visits))
    results = {name: summary(each) for name, each in visits.items()}
    if options.json:
        print(json.dumps(results))
        return
    for name, result in results.items():
        print(f"{name} visit: " + ", ".join(f"{key} {s:.2f} s" for key, s in result.items()))


if __name__ == "__main__":
    main()
