"""Measures the memory of a Chromium tab that runs a model on the CPU kernels, on Linux.

    make site && python benchmarks/browser_memory.py MODEL.gguf [--threads] [--tokens 256]

On the first visit the model is downloaded, on the second it is read from the browser's store. Each
visit is measured after the load and after an answer. The renderer process holds the whole tab (page
and workers):

    private   what Chrome's task manager shows: memory that no file backs and nobody shares
    resident  with the files that are mapped, of which Chromium's own binary takes some 100 MB
    peak      the largest resident size

Sizes are in MB of 10^6 bytes; x is the ratio to the model file. `--threads` isolates the page.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.async_api import BrowserContext, Page, async_playwright

SITE = Path(__file__).parents[1] / "js" / "dist"
SETTLE_S = 10  # until garbage is collected
LOAD = """async () => {
    const { CreateWebWorkerMLCEngine } = await import("/client.js");
    const worker = new Worker("/worker.js", { type: "module" });
    const model_list = [{ model: "/model.gguf", model_id: "model" }];
    window.engine = await CreateWebWorkerMLCEngine(worker, "model", { appConfig: { model_list } });
}"""
ANSWER = """async (max_tokens) => {
    const messages = [{ role: "user", content: "Write a long story about a lighthouse." }];
    const { usage } = await window.engine.chat.completions.create({ messages, max_tokens });
    return usage.completion_tokens;
}"""


class Handler(SimpleHTTPRequestHandler):
    """Serves the site, the model at /model.gguf, and an empty page at /empty."""

    def __init__(self, *args: object, model: Path, isolated: bool) -> None:
        self.model, self.isolated = model, isolated
        super().__init__(*args, directory=str(SITE))  # type: ignore[arg-type]

    def translate_path(self, path: str) -> str:
        match path:
            case "/model.gguf":
                return str(self.model)
            case "/empty":
                return str(SITE / "icon.svg")
        return super().translate_path(path)

    def end_headers(self) -> None:
        if self.isolated:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""


def status_mb(pid: int, *names: str) -> float:
    """Returns the sum of these fields of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return sum(int(fields[name].split()[0]) for name in names) * 1024 / 1e6


async def renderers(page: Page) -> list[int]:
    browser = page.context.browser
    assert browser
    session = await browser.new_browser_cdp_session()
    processes = (await session.send("SystemInfo.getProcessInfo"))["processInfo"]
    return [process["id"] for process in processes if process["type"] == "renderer"]


async def report(page: Page, label: str, model_mb: float) -> None:
    await asyncio.sleep(SETTLE_S)
    pid = max(await renderers(page), key=lambda pid: status_mb(pid, "VmRSS"))
    columns = {
        "private": status_mb(pid, "RssAnon", "RssShmem", "VmSwap"),
        "resident": status_mb(pid, "VmRSS"),
        "peak": status_mb(pid, "VmHWM"),
    }
    text = "".join(f"  {name} {mb:4.0f} = {mb / model_mb:.2f}x" for name, mb in columns.items())
    print(f"{label:24}{text}", flush=True)


async def visit(context: BrowserContext, url: str, name: str, num_tokens: int, mb: float) -> None:
    page = await context.new_page()
    page.set_default_timeout(300_000)
    await page.goto(url)
    await page.evaluate(LOAD)
    await report(page, f"{name} visit, loaded", mb)
    got = await page.evaluate(ANSWER, num_tokens)
    await report(page, f"{name} visit, {got} tokens", mb)
    await page.close()


async def measure(url: str, num_tokens: int, model_mb: float) -> None:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "this measures Chromium: apt-get install chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        context = await browser.new_context()
        for name in ("first", "second"):
            await visit(context, url, name, num_tokens, model_mb)
        await browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="a GGUF file")
    parser.add_argument("--threads", action="store_true", help="isolate the page, as threads need")
    parser.add_argument("--tokens", type=int, default=256, help="length of the answer")
    options = parser.parse_args()
    model_mb = options.model.stat().st_size / 1e6
    handler = partial(Handler, model=options.model, isolated=options.threads)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"{options.model.name}: {model_mb:.0f} MB")
        url = f"http://127.0.0.1:{server.server_port}/empty"
        asyncio.run(measure(url, options.tokens, model_mb))
        server.shutdown()


if __name__ == "__main__":
    main()
