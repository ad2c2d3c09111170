"""One engine for all pages of a site, which outlives its pages and its worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import BrowserContext

from browser.chromium import new_context
from browser.service_workers import WorkerVersions
from browser.shared_engine import REQUESTS, open_shared, shared_page
from browser.site_server import SiteServer

FORCED = {"host": "service-worker"}


@pytest.fixture
async def context() -> AsyncIterator[BrowserContext]:
    async with new_context() as context:
        yield context


async def test_stops_lose_double_and_change_no_token(
    site: SiteServer, context: BrowserContext
) -> None:
    """The worker is stopped as the model loads, as prompts are read and as two pages stream."""
    async with shared_page(context, site) as page, shared_page(context, site) as other:
        workers = await WorkerVersions.of(page)
        loading = asyncio.ensure_future(page.evaluate("connect", FORCED))
        await page.wait_for_function("reports.some(({ phase }) => phase === 'upload')")
        await workers.stop()
        assert await loading == "service-worker"
        assert await other.evaluate("connect", FORCED) == "service-worker"
        expected = await page.evaluate("answers", REQUESTS)
        for num_chunks in (0, 40):
            answers = [
                asyncio.ensure_future(each.evaluate("answers", REQUESTS)) for each in (page, other)
            ]
            seen = await page.evaluate("arrivals.length")
            if num_chunks:
                await page.wait_for_function(f"arrivals.length > {seen + num_chunks}")
            await workers.stop()
            for each in answers:
                assert await each == expected


async def test_pages_share_one_model(site: SiteServer, context: BrowserContext) -> None:
    """Three pages stream together; one is closed in between, and its blocks are freed."""
    async with shared_page(context, site) as first, shared_page(context, site) as second:
        assert await first.evaluate("connect", FORCED) == "service-worker"
        num_requests = len(site.models.ranges)
        await second.evaluate("connect", FORCED)
        assert len(site.models.ranges) == num_requests, "the second page loaded the model again"
        expected = await first.evaluate("answers", REQUESTS)
        at_rest = await first.evaluate("load()")
        async with shared_page(context, site) as third:
            await third.evaluate("connect", FORCED)
            endless = {"prompt": "The sea", "max_tokens": 8000}
            await third.evaluate("(request) => void stream(request)", endless)
            await third.wait_for_function("arrivals.length > 3")
            both = [each.evaluate("answers", REQUESTS) for each in (first, second)]
        assert await asyncio.gather(*both) == [expected, expected]
        await first.evaluate(
            """async (free) => {
                while ((await load()).free_blocks < free) await new Promise(requestAnimationFrame);
            }""",
            at_rest["free_blocks"],
        )


async def test_a_shared_worker_outlives_a_page(site: SiteServer, context: BrowserContext) -> None:
    forced = {"host": "shared-worker"}
    async with shared_page(context, site) as second:
        async with shared_page(context, site) as first:
            assert await first.evaluate("connect", forced) == "shared-worker"
            assert await second.evaluate("connect", forced) == "shared-worker"
            expected = await first.evaluate("answers", REQUESTS)
            answers = asyncio.ensure_future(second.evaluate("answers", REQUESTS))
            await second.wait_for_function("arrivals.length > 5")
        assert await answers == expected
        starts = await second.evaluate("reports.filter(({ progress }) => progress === 0).length")
        assert starts <= 1, "the engine was started again"


async def test_an_answer_survives_a_refresh(site: SiteServer, context: BrowserContext) -> None:
    async with shared_page(context, site) as page:
        await page.evaluate("connect", FORCED)
        request = {"prompt": "Once upon a time", "seed": 7, "max_tokens": 200}
        expected = await page.evaluate("stream", request)
        asked = request | {"extra_body": {"resumable": {"enabled": True, "session_id": "a"}}}
        seen = await page.evaluate("arrivals.length")
        await page.evaluate("(request) => void stream(request)", asked)
        await page.wait_for_function(f"arrivals.length > {seen + 5}")
        num_requests = len(site.models.ranges)
        await open_shared(page, site)
        await page.evaluate("connect", FORCED)
        assert len(site.models.ranges) == num_requests, "the model was loaded again"
        assert await page.evaluate("stream", asked) == expected


async def test_page_and_worker_end_together(site: SiteServer, context: BrowserContext) -> None:
    async with shared_page(context, site) as other:
        workers = await WorkerVersions.of(other)
        request = {"prompt": "Once upon a time", "seed": 7, "max_tokens": 64}
        asked = request | {"extra_body": {"resumable": {"enabled": True, "session_id": "a"}}}
        async with shared_page(context, site) as page:
            await page.evaluate("connect", FORCED)
            expected = await page.evaluate("stream", request)
            seen = await page.evaluate("arrivals.length")
            await page.evaluate("(request) => void stream(request)", asked)
            await page.wait_for_function(f"arrivals.length > {seen + 30}")
        await workers.stop()
        async with shared_page(context, site) as page:
            assert await page.evaluate("connect", FORCED) == "service-worker"
            [session] = await page.evaluate("engine.listResumableSessions()")
            assert 0 < session["emittedTokens"] < 64
            assert await page.evaluate("stream", asked) == expected


async def test_an_update_while_an_answer_runs(
    site: SiteServer, context: BrowserContext, tmp_path: Any
) -> None:
    async with shared_page(context, site) as page:
        await page.evaluate("connect", FORCED)
        expected = await page.evaluate("answers", REQUESTS)
        answers = asyncio.ensure_future(page.evaluate("answers", REQUESTS))
        seen = await page.evaluate("arrivals.length")
        await page.wait_for_function(f"arrivals.length > {seen + 20}")
        await page.evaluate("register('/tests/updated_worker.js')")
        assert await answers == expected
        is_updated = "navigator.serviceWorker.controller.scriptURL.endsWith('updated_worker.js')"
        await page.wait_for_function(is_updated)
        assert await page.evaluate("answers", REQUESTS) == expected


async def test_the_tab_with_the_engine_is_closed(site: SiteServer, context: BrowserContext) -> None:
    async with shared_page(context, site) as second:
        async with shared_page(context, site) as first:
            assert await first.evaluate("connect()") == "tab"
            assert await second.evaluate("connect()") == "tab"
            expected = await second.evaluate("answers", REQUESTS)
            answers = asyncio.ensure_future(second.evaluate("answers", REQUESTS))
            seen = await second.evaluate("arrivals.length")
            await second.wait_for_function(f"arrivals.length > {seen + 20}")
        assert await answers == expected
