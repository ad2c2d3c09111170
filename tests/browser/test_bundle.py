"""`webllm bundle`: any file host can serve the folder under any path, and may end afterwards."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from playwright.async_api import expect

from browser.chat_page import answers, ask, chat_page, shorten_answers
from browser.test_offline import POST, PRECACHE
from browser.test_page_real import ready


@contextmanager
def file_host(folder: Path, port: int) -> Iterator[None]:
    """Runs `python -m http.server`, and ends it completely afterwards."""
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(port)
            yield
        finally:
            process.kill()


def wait_for(port: int) -> None:
    for _ in range(100):
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def test_a_bundle_has_threads_on_any_host_and_outlives_it(tmp_path: Path) -> None:
    """The host sends no headers; then it ends, and the network is cut."""
    out = tmp_path / "some" / "where"
    command = [sys.executable, "-c", "from webllm.cli import main; main()", "bundle", str(out)]
    subprocess.run(command, check=True, timeout=300)
    port = free_port()
    with ExitStack() as first_visit:
        first_visit.enter_context(file_host(tmp_path, port))
        async with chat_page(f"http://127.0.0.1:{port}/some/where") as page:
            await shorten_answers(page)
            await page.click("text=Load model")
            await ready(page)
            cores = await page.evaluate("navigator.hardwareConcurrency")
            await expect(page.locator("#device-note")).to_contain_text(f"{min(cores, 8)} threads")
            await ask(page, "Name three colours.")
            assert (await answers(page))[-1]
            await expect(page.locator(".answer .stats")).to_contain_text("tokens/s")
            assert await page.evaluate(POST, PRECACHE)
            first_visit.close()
            await page.context.set_offline(True)
            await page.reload()
            await ready(page)  # from the browser's store
            await ask(page, "Name three animals.")
            assert (await answers(page))[-1]
