"""A consent that takes longer than Chrome leaves an idle background worker alive, which is 30 s."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from urllib.parse import quote

from browser.devtools import devtools
from browser.extensions import PAGES, write_fake_package
from browser.site_server import DIST, serving
from long.figures import AddFigures, count

WAIT_S = count("CONSENT_S", 75)
MATCHES = {"matches": ["http://127.0.0.1/*"]}
CONNECT = """import("/client.js").then(({{ ExtensionServiceWorkerMLCEngine }}) => {{
    const engine = new ExtensionServiceWorkerMLCEngine({{ extensionId: "{}" }});
    engine.ready.then(() => (globalThis.reply = engine.host), (e) => (globalThis.reply = `${{e}}`));
}})"""


async def test_a_late_consent(tmp_path: Path, add_figures: AddFigures) -> None:
    """No debugger is attached to the background worker: Chrome would not end it then."""
    folder = tmp_path / "extension"
    folder.mkdir()
    write_fake_package(folder, has_background=True, externally_connectable=MATCHES)
    with serving({"": DIST, "tests": PAGES}) as site:
        async with devtools(tmp_path / "profile", "--enable-unsafe-extension-debugging") as chrome:
            extension = (await chrome.send("Extensions.loadUnpacked", path=str(folder)))["id"]
            _, page = await chrome.open(f"{site.url}/tests/empty.html")
            await chrome.until(page, "document.readyState === 'complete'")
            started = time.monotonic()
            await chrome.evaluate(page, CONNECT.format(extension))
            address = f"/consent.html?origin={quote(site.url, safe='')}"
            window = await chrome.attach(await chrome.target(address))
            await asyncio.sleep(WAIT_S)
            assert await chrome.evaluate(page, "globalThis.reply") is None
            await chrome.until(window, "document.getElementById('allow') !== null")
            await chrome.evaluate(window, "document.getElementById('allow').click()")
            await chrome.until(page, "globalThis.reply !== undefined")
            assert await chrome.evaluate(page, "globalThis.reply") == "offscreen"
    add_figures("late consent", {"until the engine (s)": time.monotonic() - started})
