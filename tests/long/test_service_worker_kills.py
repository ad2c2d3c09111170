"""The Service Worker is stopped, its pages are reloaded and closed; answers stay the same."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from playwright.async_api import BrowserContext

from browser.chromium import FLAGS, new_context
from browser.engines.processes import running
from browser.engines.webkit import display
from browser.service_workers import WorkerVersions
from browser.shared_engine import REQUESTS, open_shared, shared_page
from browser.site_server import DIST, ROOT, SiteServer, serving
from golden.compare import model_path
from long.figures import SEED, AddFigures, count
from webllm.workers.resumption import MAX_LOSSES

FORCED = {"host": "service-worker"}
NUM_STOPS = count("SERVICE_WORKER_STOPS", 20)
NUM_REFRESHES = count("REFRESHES", 10)
NUM_BOTH = count("PAGE_AND_WORKER_KILLS", 5)
MINUTES = count("MINUTES", 7)  # without a debugger; Chrome ends an event of 5 minutes
LONGEST_S = 600.0  # for one round of answers
STORY: dict[str, Any] = {"prompt": "Once upon a time", "seed": 7, "max_tokens": 200}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SiteServer]:
    models = tmp_path / "models"
    models.mkdir()
    (models / "smollm2.gguf").symlink_to(asyncio.run(model_path("smollm2-135m")))
    pages = ROOT / "tests" / "browser" / "pages"
    with serving({"": DIST, "tests": pages, "models": models}) as server:
        yield server


@pytest.fixture
async def context(site: SiteServer) -> AsyncIterator[BrowserContext]:
    async with new_context() as context:
        yield context


async def test_stops_lose_double_and_change_no_token(
    site: SiteServer, context: BrowserContext, add_figures: AddFigures
) -> None:
    rng = random.Random(SEED)
    async with shared_page(context, site) as page, shared_page(context, site) as other:
        workers = await WorkerVersions.of(page)
        assert await page.evaluate("connect", FORCED) == "service-worker"
        await other.evaluate("connect", FORCED)
        started = time.monotonic()
        expected = await page.evaluate("answers", REQUESTS)
        undisturbed_s = time.monotonic() - started
        num_stops = num_rounds = 0

        async def stop() -> None:
            nonlocal num_stops
            while num_stops < NUM_STOPS:
                for _ in range(MAX_LOSSES // 2):
                    # Most stops come while answers run; a third while Python starts and loads.
                    longest = undisturbed_s if rng.random() < 2 / 3 else 0
                    await asyncio.sleep(rng.uniform(0, 5 + 2 * longest))
                    num_stops += await workers.stop_if_running()
                for each in (page, other) if num_stops < NUM_STOPS else ():
                    # A request is given up without a new token.
                    seen = await each.evaluate("arrivals.length")
                    await each.wait_for_function(f"arrivals.length > {seen + 40}")

        stopping = asyncio.create_task(stop())
        while num_stops < NUM_STOPS:
            async with asyncio.timeout(LONGEST_S):
                both = [each.evaluate("answers", REQUESTS) for each in (page, other)]
                assert await asyncio.gather(*both) == [expected] * 2, f"{SEED=}, stop {num_stops}"
            num_rounds += 1
        await stopping
        assert await page.evaluate("answers", REQUESTS) == expected
        arrivals = await page.evaluate("arrivals")
    gaps = gaps_s(workers.stopped_at, arrivals)
    figures = {
        "stops": num_stops,
        "rounds of 8 answers": num_rounds,
        "stop to next token, median (s)": median(gaps),
        "stop to next token, worst (s)": max(gaps),
    }
    add_figures("service worker stops", figures)


def gaps_s(stops_s: list[float], arrivals_ms: list[float]) -> list[float]:
    """Returns the seconds from each stop to the next token, unless another stop comes before."""
    gaps = []
    for stop, following in zip(stops_s, [*stops_s[1:], float("inf")], strict=True):
        first = next((each / 1000 for each in arrivals_ms if each / 1000 > stop), None)
        if first is not None and first < following:
            gaps.append(first - stop)
    return gaps


def resumable(session_id: str) -> dict[str, Any]:
    return STORY | {"extra_body": {"resumable": {"enabled": True, "session_id": session_id}}}


BEGIN = """async ([request, count]) => {
    const begun = new Promise((resolve) => {
        const look = ({ 0: choice }) => choice && choice.tokens.length >= count && resolve();
        void stream(request, look).catch(() => {});
    });
    await begun;
}"""


async def test_refreshes_during_an_answer(
    site: SiteServer, context: BrowserContext, add_figures: AddFigures
) -> None:
    rng = random.Random(SEED)
    async with shared_page(context, site) as page:
        await page.evaluate("connect", FORCED)
        expected = await page.evaluate("stream", STORY)
        gaps = []
        for turn in range(NUM_REFRESHES):
            asked = resumable(f"refresh {turn}")
            await page.evaluate(BEGIN, [asked, rng.randint(1, STORY["max_tokens"] - 20)])
            started = time.time()
            await open_shared(page, site)
            await page.evaluate("connect", FORCED)
            assert await page.evaluate("stream", asked) == expected
            gaps += gaps_s([started], await page.evaluate("arrivals"))
    add_figures("refreshes", {"refreshes": len(gaps), "to next token, median (s)": median(gaps)})


async def test_page_and_worker_end_together(
    site: SiteServer, context: BrowserContext, add_figures: AddFigures
) -> None:
    rng = random.Random(SEED)
    gaps, num_kept = [], []
    async with shared_page(context, site) as other:
        workers = await WorkerVersions.of(other)
        async with shared_page(context, site) as page:
            await page.evaluate("connect", FORCED)
            expected = await page.evaluate("stream", STORY)
        for turn in range(NUM_BOTH):
            asked = resumable(f"both {turn}")
            async with shared_page(context, site) as page:
                await page.evaluate("connect", FORCED)
                await page.evaluate(BEGIN, [asked, rng.randint(30, STORY["max_tokens"] - 20)])
                started = time.time()
                await asyncio.gather(page.close(), workers.stop())
            async with shared_page(context, site) as page:
                await page.evaluate("connect", FORCED)
                sessions = await page.evaluate("engine.listResumableSessions()")
                num_kept += [
                    s["emittedTokens"] for s in sessions if s["sessionId"] == f"both {turn}"
                ]
                assert await page.evaluate("stream", asked) == expected
                gaps += gaps_s([started], await page.evaluate("arrivals"))
    assert len(num_kept) == NUM_BOTH
    figures = {
        "kills": NUM_BOTH,
        "to next token, median (s)": median(gaps),
        "tokens in the journal, fewest": min(num_kept),
    }
    add_figures("page and worker killed together", figures)


async def test_an_update_waits_for_an_answer_of_many_seconds(
    site: SiteServer, context: BrowserContext
) -> None:
    """Its page keeps the old worker by events of 10 s: between two it would be stopped."""
    async with shared_page(context, site) as page:
        await page.evaluate("connect", FORCED)
        num_starts = await page.evaluate("reports.length")
        await page.evaluate("register('/tests/updated_worker.js')")
        await page.evaluate(
            """async () => {
                const until = performance.now() + 15_000;
                const request = { prompt: "The sea", seed: 7, max_tokens: 50 };
                while (performance.now() < until) await stream(request);
            }"""
        )
        assert await page.evaluate("reports.length") == num_starts, "the model was loaded again"
        is_updated = "navigator.serviceWorker.controller.scriptURL.endsWith('updated_worker.js')"
        await page.wait_for_function(is_updated)


async def test_minutes_without_a_debugger(
    site: SiteServer, tmp_path: Path, add_figures: AddFigures
) -> None:
    """A debugger suspends the limits of Chrome's workers, so the pages report to the server.

    A hidden tab streams, while the other one waits for one whole answer.
    """
    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "these tests need Chromium: apt-get install chromium"
    pages = [f"{site.url}/tests/minutes.html?{which}={MINUTES}" for which in ("whole", "streams")]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    with display() as name:  # a browser without a window opens one page only
        environment = {**os.environ, "DISPLAY": name}
        with running(path, profile, *FLAGS, *pages, env=environment) as browser:
            async with asyncio.timeout(60 * (5 + 3 * MINUTES)):
                while (said := said_by(site)).keys() != {"streams", "whole"}:
                    assert browser.poll() is None, "the browser has ended"
                    await asyncio.sleep(1)
    for which in ("streams", "whole"):
        assert said[which]["error"] == "", said
        assert float(said[which]["losses"]) == 0, "the browser has stopped the worker"
    assert float(said["streams"]["seconds"]) >= 60 * MINUTES
    assert float(said["whole"]["longest"]) >= 60 * MINUTES
    assert said["streams"]["visibility"] == "hidden"
    figures = {
        "streams of a hidden tab (s)": float(said["streams"]["seconds"]),
        "one whole answer (s)": float(said["whole"]["longest"]),
    }
    add_figures("without a debugger", figures)


def said_by(site: SiteServer) -> dict[str, dict[str, str]]:
    paths = [urlsplit(path) for path in site.requested if path.startswith("/said?")]
    reports = [dict(parse_qsl(path.query, keep_blank_values=True)) for path in paths]
    return {report["which"]: report for report in reports}
