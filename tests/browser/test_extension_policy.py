"""The policy of an extension's pages and workers: nothing gets to other hosts than the models'."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from browser.extensions import PAGES, running, write_fake_package
from browser.site_server import serving
from webllm.cli.extension_manifest import Access, Kind, extension_manifest

# Returns the ways that did not fail. A page of this address would be fetched.
TRY = """async (url) => {
    const loads = (object) => new Promise((resolve, reject) => {
        object.onload = object.onopen = object.onmessage = resolve;
        object.onerror = reject;
    });
    const element = (tag, properties) => {
        const made = document.createElement(tag);
        const loading = loads(made);
        Object.assign(made, properties);
        document.body.append(made);
        return loading;
    };
    const blob = () => {
        const fail = "() => setTimeout(() => { throw 1 })";
        const code = new Blob([`fetch("${url}").then(() => postMessage(1), ${fail})`]);
        return loads(new Worker(URL.createObjectURL(code)));
    };
    const ways = {
        fetch: () => fetch(url),
        blind: () => fetch(url, { mode: "no-cors" }),
        socket: () => loads(new WebSocket(url.replace("http", "ws"))),
        events: () => loads(new EventSource(url)),
        module: () => import(url),
        eval: () => eval("1"), // later than the debugger, who may
        ...(globalThis.Worker && { worker: () => loads(new Worker(url)), blob }),
        ...(globalThis.document && {
            img: () => element("img", { src: url }),
            script: () => element("script", { src: url }),
            style: () => element("link", { rel: "stylesheet", href: url }),
            prefetch: () => element("link", { rel: "prefetch", href: url }),
            video: () => element("video", { src: url }),
        }),
    };
    const tried = Object.entries(ways).map(async ([name, way]) => {
        await new Promise((resolve) => setTimeout(resolve));
        try {
            await way();
            return [name];
        } catch {
            return [];
        }
    });
    return (await Promise.all(tried)).flat();
}"""

START = """() => {
    globalThis.started = new Worker("offscreen_worker.js", { type: "module", name: "test" });
}"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package with the manifest that `webllm extension` writes."""
    write_fake_package(tmp_path, has_background=True)
    manifest = extension_manifest(Kind.BACKGROUND, "1.0", Access(("https://models.example",)))
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def blocked(url: str) -> list[str]:
    """What the browser logs if the policy blocks each way of a background worker's."""
    socket = url.replace("http", "ws")
    return [
        *(f"Connecting to '{each}' violates the following Content" for each in (url, socket)),
        f"Fetch API cannot load {url}. Refused to connect because it violates the document's Cont",
    ]


def blocked_in_pages(url: str) -> list[str]:
    """As `blocked`, of pages and their workers."""
    ways = [
        *("Loading the script", "Loading the image", "Loading the stylesheet"),
        *("Fetching content from", "Loading media from "),
    ]
    ends = [f"{way} '{url}' violates the following Content Security Policy" for way in ways]
    return [*blocked(url), *ends, 'Uncaught 1", source: blob:chrome-extension://']


async def test_nothing_gets_out_of_pages_and_their_workers(folder: Path) -> None:
    with serving({"": PAGES}) as site:
        url = f"{site.url}/empty.html"
        async with running(folder, expected_faults=blocked_in_pages(url)) as extension:
            for name in ("popup.html", "offscreen.html"):
                page = await extension.context.new_page()
                async with page.expect_worker() as worker:
                    await page.goto(f"{extension.origin}/{name}")
                    if name == "popup.html":
                        await page.evaluate(START)
                for place in (page, await worker.value):
                    assert await place.evaluate(TRY, url) == []
        assert site.requested == []


async def test_nothing_gets_out_of_the_background(folder: Path) -> None:
    with serving({"": PAGES}) as site:
        url = f"{site.url}/empty.html"
        async with running(folder, expected_faults=blocked(url)) as extension:
            worker = await extension.background()
            assert await worker.evaluate(TRY, url) == []
        assert site.requested == []
