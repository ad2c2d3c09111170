"""Finds tasks over 50 ms on the chat page's main thread while a model answers, in Chromium.

    .venv/bin/python benchmarks/browser_long_tasks.py [--tokens 500] [--slowdown 4] [--pace 12]

Needs the built page (`make site`). `--slowdown` throttles the main thread as DevTools does. By
default the real worker answers with SmolLM2. With `--pace`, a fake worker sends markdown with code,
lists and tables instead, one token every PACE ms. Prints JSON: each task's wall time and CPU time.
On a busy machine only the CPU time counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Page, async_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser.chromium import FLAGS  # noqa: E402
from browser.site_server import SiteServer, serving  # noqa: E402
from golden import compare  # noqa: E402

DIST = ROOT / "js" / "dist"
PROMPT = (
    "Write a Python function that finds prime numbers, in a code block. Then explain each step in "
    "a numbered list, then write tests in a second code block, then list what could be better."
)
LONG_MS = 50
FAKE_WORKER = """
const PART = `### Part ${"$"}

A **sieve** crosses out multiples; *what is left* has no divisors, see [it](https://example.org).

\\`\\`\\`python
def primes(limit):
    is_prime = [True] * limit
    return [n for n in range(2, limit) if is_prime[n]]
\\`\\`\\`

1. It needs memory for \\`limit\\` flags.
   - So each composite is crossed out once.
2. The loop ends at the square root.

| limit | primes |
| ----: | -----: |
| 1,000 |    168 |

`;
let pieces, sent;
const chunk = (choices) => ({ choices });
onmessage = async ({ data: { kind, uuid } }) => {
  let content = null;
  if (kind === "hello") content = { protocol: 2 };
  if (kind === "getDeviceName") content = "CPU (fake, 1 threads)";
  if (kind === "chatCompletionStreamInit") {
    pieces = PART.repeat(40).match(/\\s*\\S+/g).slice(0, TOKENS);
    sent = 0;
  }
  if (kind === "completionStreamNextChunk") {
    await new Promise((resolve) => setTimeout(resolve, PACE));
    const delta = { content: pieces[sent++] };
    content = delta.content && chunk([{ index: 0, delta, finish_reason: null }]);
  }
  if (kind !== "setAppConfig") postMessage({ kind: "return", uuid, content });
};
"""


async def main() -> None:
    options = parsed()
    model = await compare.model_path("smollm2-135m")
    with site(options, model) as server:
        async with async_playwright() as playwright:
            path = shutil.which("chromium") or shutil.which("google-chrome")
            browser = await playwright.chromium.launch(executable_path=path, args=FLAGS)
            page = await browser.new_page()
            print(json.dumps(await measure(page, server.url, options)))
            await browser.close()


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, default=500, help="of the answer, at most")
    parser.add_argument("--slowdown", type=float, default=1, help="of the page's main thread")
    parser.add_argument("--pace", type=float, help="ms a token, from a fake worker")
    return parser.parse_args()


@contextmanager
def site(options: argparse.Namespace, model: Path) -> Iterator[SiteServer]:
    assert (DIST / "page.js").exists(), "make site builds what is served here"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in DIST.iterdir():
            (folder / path.name).symlink_to(path)
        (folder / "models.json").unlink()
        record = {"model": "/models/smollm2.gguf", "model_id": "SmolLM2-135M-Instruct"}
        (folder / "models.json").write_text(json.dumps({"model_list": [record]}))
        models = folder / "models"
        models.mkdir()
        if options.pace is None:
            (models / "smollm2.gguf").symlink_to(model)
        else:
            (folder / "worker.js").unlink()
            constants = f"const TOKENS = {options.tokens}, PACE = {options.pace};\n"
            (folder / "worker.js").write_text(constants + FAKE_WORKER)
        with serving({"": folder, "models": models}) as server:
            yield server


async def measure(page: Page, url: str, options: argparse.Namespace) -> dict[str, Any]:
    page.set_default_timeout(600_000)
    await page.goto(f"{url}/index.html")
    await page.click("#open-settings")
    await page.get_by_label("Longest answer").fill(str(options.tokens))
    await page.get_by_label("Temperature").fill("0")
    await page.keyboard.press("Escape")
    await page.click("text=Load model")
    await page.wait_for_selector("#model-dot[data-phase=ready]")
    session = await page.context.new_cdp_session(page)
    await session.send("Emulation.setCPUThrottlingRate", {"rate": options.slowdown})
    assert page.context.browser
    await page.context.browser.start_tracing(page=page, categories=["toplevel"])
    await page.fill("#prompt", PROMPT)
    await page.press("#prompt", "Enter")
    await page.wait_for_selector(".answer:last-child[aria-busy=false]")
    await asyncio.sleep(1)
    trace = json.loads(await page.context.browser.stop_tracing())
    return {
        "answer": await page.inner_text(".answer .stats"),
        "code_blocks": await page.locator(".answer .code-block").count(),
        "slowdown": options.slowdown,
        **tasks(trace["traceEvents"]),
    }


def tasks(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the number of the main thread's tasks, and the longest in ms."""
    [main_thread, *_] = [
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    ]
    found = [
        event
        for event in events
        if event["name"].endswith("RunTask") and (event["pid"], event["tid"]) == main_thread
    ]
    clock = sorted((event["dur"] // 1000 for event in found), reverse=True)
    processor = sorted((event.get("tdur", 0) // 1000 for event in found), reverse=True)
    return {
        "tasks": len(found),
        "longest_ms": clock[:8],
        "longest_cpu_ms": processor[:8],
        "over_50_ms": sum(ms > LONG_MS for ms in clock),
        "over_50_cpu_ms": sum(ms > LONG_MS for ms in processor),
    }


if __name__ == "__main__":
    asyncio.run(main())
