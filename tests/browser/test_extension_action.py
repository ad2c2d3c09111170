"""The popup as Chrome opens it, by the extension's button: it may read the open page."""

from __future__ import annotations

from pathlib import Path

from browser.devtools import devtools
from browser.extensions import PAGES, write_fake_package
from browser.site_server import serving

PAGE = """<!doctype html><title>Whales</title><link rel="icon" href="data:,">
<main><h1>Whales</h1><p>The blue whale is the largest animal that has ever lived.</p></main>"""

READ = """chrome.tabs.query({ active: true, currentWindow: true })
    .then(([{ id }]) => chrome.scripting.executeScript({
        target: { tabId: id },
        func: () => document.body.innerText,
    }))
    .then(([{ result }]) => result)"""


async def test_the_button_opens_the_popup_on_the_page(tmp_path: Path) -> None:
    folder, site_folder = tmp_path / "extension", tmp_path / "site"
    folder.mkdir()
    site_folder.mkdir()
    (site_folder / "whales.html").write_text(PAGE)
    write_fake_package(folder, has_background=True, host_permissions=[])
    with serving({"": site_folder, "tests": PAGES}) as site:
        async with devtools(tmp_path / "profile", "--enable-unsafe-extension-debugging") as chrome:
            extension = (await chrome.send("Extensions.loadUnpacked", path=str(folder)))["id"]
            tab, page = await chrome.open(f"{site.url}/whales.html")
            await chrome.until(page, "document.title === 'Whales'")
            await chrome.send("Extensions.triggerAction", id=extension, targetId=tab)
            popup = await chrome.attach(await chrome.target("/popup.html"))
            await chrome.until(popup, "document.body?.innerText.includes('This page: Whales')")
            assert "The blue whale is the largest" in await chrome.evaluate(popup, READ)
            assert await chrome.evaluate(popup, "document.activeElement.id") == "prompt"
