"""The benchmark page with small sizes: our engine and wllama, on the real model."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from playwright.async_api import Page, Route, expect

from browser.chromium import new_context, watched_page
from browser.site_server import ROOT, SiteServer, serving

JS = ROOT / "js"
AXE = JS / "node_modules" / "axe-core" / "axe.min.js"
# A change of the theme may begin its transitions with the next frame only.
SETTLE = """new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
    document.getAnimations().forEach(each => each.finish());
    done();
})))"""
SIZE_BYTES = 98_362_432
MODEL = {"model": "models/smollm2.gguf", "model_id": "SmolLM2-135M", "size_bytes": SIZE_BYTES}
MLC_MODEL = {"model": "mlc/Given", "model_id": "Given-MLC", "model_lib": "mlc/given.wasm"}
PROMPT_TOKENS, MAX_TOKENS = 12, 4


@pytest.fixture(scope="module")
def benchmark_site(site: SiteServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serves the built site with this one model, and the other engines."""
    folder = tmp_path_factory.mktemp("benchmark")
    for file in site.folders[""].iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "models.json").unlink()
    (folder / "models.json").write_text(json.dumps({"model_list": [MODEL]}))
    (folder / "mlc.json").write_text(json.dumps([MLC_MODEL]))
    folders = {"": folder, "models": site.folders["models"], "peers": JS / "peers"}
    with serving(folders) as server:
        yield f"{server.url}/benchmark.html"


@pytest.fixture
async def benchmark(benchmark_site: str) -> AsyncIterator[Page]:
    async with new_context() as context, watched_page(context) as page:
        await page.goto(f"{benchmark_site}?peers")
        await expect(page.locator(".engine")).to_have_count(7)
        yield page


async def measured(page: Page) -> dict[str, Any]:
    """Runs a measurement with small sizes; returns the report that users can copy."""
    await page.fill("#prompt-tokens", str(PROMPT_TOKENS))
    await page.fill("#max-tokens", str(MAX_TOKENS))
    await page.fill("#repeats", "1")
    await page.click("#run")
    await page.wait_for_selector("#stop", state="hidden")
    await page.click("#copy")
    await expect(page.locator("#status")).to_have_text("Copied.")
    report: dict[str, Any] = json.loads(await page.evaluate("navigator.clipboard.readText()"))
    return report


def check_sane(sample: dict[str, Any]) -> None:
    assert sample["promptTokens"] == PROMPT_TOKENS
    assert sample["completionTokens"] == MAX_TOKENS
    prefill_s = PROMPT_TOKENS / sample["prefillTokensPerS"]
    assert sample["firstTokenMs"] == pytest.approx(1000 * prefill_s)
    assert 0 < sample["decodeTokensPerS"] < 10_000
    assert sample["startColdMs"] > 0
    assert sample["startStoredMs"] > (sample["bootMs"] or 0)


async def test_measures_ours_and_wllama(benchmark: Page) -> None:
    report = await measured(benchmark)
    ours, wllama = report["engines"]
    assert (ours["id"], wllama["id"]) == ("webllm-cpu", "wllama")
    for engine in (ours, wllama):
        [sample] = engine["samples"]
        check_sane(sample)
        assert re.fullmatch(r"CPU \(.*\b1 threads?\)", sample["device"])
    assert ours["samples"][0]["bootMs"] > 0
    assert ours["figures"]["decodeTokensPerS"]["oursTimesAsFast"] is None
    ratio = wllama["figures"]["decodeTokensPerS"]["oursTimesAsFast"]
    rates = [each["samples"][0]["decodeTokensPerS"] for each in (ours, wllama)]
    assert ratio == pytest.approx(rates[0] / rates[1])
    row = benchmark.locator("[data-engine=wllama]")
    await expect(row.locator(".times").last).to_contain_text(f"ours {ratio:.1f}")


async def test_a_cold_start_downloads_and_the_next_one_does_not(benchmark: Page) -> None:
    downloads: list[str] = []

    async def count(route: Route) -> None:  # where requests are routed, no HTTP cache answers
        downloads.append(route.request.method)
        await route.continue_()

    await benchmark.context.route("**/models/*", count)
    await benchmark.fill("#prompt-tokens", "2")
    await benchmark.fill("#max-tokens", "2")
    for num_samples in (1, 2):
        await benchmark.evaluate("measure('webllm-cpu')")
        assert downloads == ["GET"] * num_samples


async def test_stops_at_once(benchmark: Page) -> None:
    await benchmark.click("#run")
    await expect(benchmark.locator("#status")).to_contain_text("1 of 5: ")
    await expect(benchmark.locator("#repeats")).to_be_disabled()
    await benchmark.click("#stop")
    await expect(benchmark.locator("#status")).to_have_text("Stopped.")
    await expect(benchmark.locator("#repeats")).to_be_enabled()
    await expect(benchmark.locator("tr[data-engine]")).to_have_count(2)
    await expect(benchmark.locator(".results .error")).to_have_count(0)


async def test_a_model_for_webllm_can_be_given(benchmark_site: str, benchmark: Page) -> None:
    offered = benchmark.locator("#mlc-model option")
    await expect(offered.first).to_have_text("SmolLM2-135M-Instruct-q0f32-MLC")
    await benchmark.goto(f"{benchmark_site}?peers&mlc=mlc.json")
    await expect(offered.first).to_have_text("Given-MLC")


async def test_what_cannot_run_here_says_why(benchmark: Page) -> None:
    threads = benchmark.locator(".engine", has_text="wllama, CPU, threads")
    await expect(threads).to_contain_text("threads need a page that is cross-origin isolated")
    await expect(threads.locator("input")).to_be_disabled()


@pytest.mark.parametrize("width", [360, 1280])
async def test_axe_finds_nothing_and_nothing_is_too_wide(
    benchmark_site: str, benchmark: Page, width: int
) -> None:
    await benchmark.set_viewport_size({"width": width, "height": 740})
    assert await benchmark.evaluate("document.documentElement.scrollWidth") == width
    for theme in ("light", "dark"):
        await benchmark.emulate_media(color_scheme=theme, reduced_motion="reduce")
        await benchmark.evaluate(SETTLE)
        await benchmark.evaluate(AXE.read_text())
        found = await benchmark.evaluate("axe.run().then(results => results.violations)")
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        assert [node["html"] for each in serious for node in each["nodes"]] == []
    await benchmark.goto(benchmark_site)  # the site alone, without the others
    await expect(benchmark.locator(".engine")).to_have_count(3)
    await expect(benchmark.locator("#no-peers")).to_be_visible()
