"""An extension's workers and browser end at random moments; its answers stay the same."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from playwright.async_api import Error

from browser.chat_page import until
from browser.extensions import browser_process, running, write_real_package
from browser.service_workers import WorkerVersions
from browser.shared_engine import REQUESTS
from browser.test_extension_engine import FILES, begin
from golden.compare import model_path
from long.figures import SEED, AddFigures, count

NUM_ENDS = count("EXTENSION_ENDS", 10)  # of the background worker and of the offscreen document
NUM_BROWSERS = count("EXTENSION_BROWSERS", 3)
STORY: dict[str, Any] = {"prompt": "Once upon a time", "seed": 7, "max_tokens": 200}


async def test_ends_of_an_extensions_workers(tmp_path: Path, add_figures: AddFigures) -> None:
    rng = random.Random(SEED)
    folder = write_real_package(tmp_path, await model_path("smollm2-135m"), FILES)
    async with (
        running(folder) as extension,
        extension.page("page.html") as page,
        extension.page("page.html") as other,
    ):
        workers = await WorkerVersions.of(page)
        await page.evaluate("connect()")
        await other.evaluate("connect()")
        started = time.monotonic()
        expected = await page.evaluate("answers", REQUESTS)
        undisturbed_s = time.monotonic() - started
        seconds = []
        for turn in range(NUM_ENDS):
            started = time.monotonic()
            answers = [each.evaluate("answers", REQUESTS) for each in (page, other)]
            both = asyncio.gather(*answers)
            await asyncio.sleep(rng.uniform(0, 1.5 * undisturbed_s))
            ends = [workers.stop_if_running, extension.end_engine]
            for end in rng.choice([ends[:1], ends[1:], ends]):
                await end()
            assert await both == [expected] * 2, f"{SEED=}, turn {turn}"
            seconds.append(time.monotonic() - started)
    figures = {
        "ends": NUM_ENDS,
        "undisturbed round (s)": undisturbed_s,
        "disturbed round, median (s)": median(seconds),
    }
    add_figures("extension ends", figures)


async def test_ends_of_the_browser(tmp_path: Path, add_figures: AddFigures) -> None:
    rng = random.Random(SEED)
    folder, profile = tmp_path / "extension", tmp_path / "profile"
    write_real_package(folder, await model_path("smollm2-135m"), FILES)
    async with running(folder) as extension, extension.page("page.html") as page:
        await page.evaluate("connect()")
        expected = await page.evaluate("stream", STORY)
    for turn in range(NUM_BROWSERS):
        asked = STORY | {"extra_body": {"resumable": {"enabled": True, "session_id": f"{turn}"}}}
        with suppress(Error):  # of Playwright, whose browser is gone
            async with running(folder, profile=profile) as extension:
                page = await extension.context.new_page()
                await page.goto(f"{extension.origin}/page.html")
                await until(page, "'connect' in globalThis")
                await page.evaluate("connect()")
                num_chunks = rng.randint(20, STORY["max_tokens"] - 20)
                answer = await begin(page, [asked], num_chunks)
                os.kill(browser_process(extension.profile), signal.SIGKILL)
                await answer
        async with (
            running(folder, profile=profile) as extension,
            extension.page("page.html") as page,
        ):
            await page.evaluate("connect()")
            [session] = await page.evaluate("engine.listResumableSessions()")
            assert session["emittedTokens"] > 0
            assert await page.evaluate("stream", asked) == expected
            await page.evaluate("engine.deleteAllResumableSessions()")
    add_figures("extension browsers killed", {"kills": NUM_BROWSERS})
