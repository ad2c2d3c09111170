"""The window that asks whether a website or another extension may use an extension's model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.async_api import Page, expect

from browser.extensions import running, write_fake_package
from browser.test_page_access import violations

OTHER = f"chrome-extension://{'abcdefghijklmnop' * 2}"
SITE = "https://example.com"
LONG_SITE = f"https://{'.'.join(['a' * 60] * 4)}.com"


@asynccontextmanager
async def asking(folder: Path, origin: str, width: int, lang: str = "en") -> AsyncIterator[Page]:
    write_fake_package(folder, has_background=True)
    options: dict[str, Any] = {"viewport": {"width": width, "height": 360}, "bypass_csp": True}
    async with running(folder, language=lang, flags=[f"--lang={lang}"], **options) as extension:
        page = await extension.context.new_page()
        await page.goto(f"{extension.origin}/consent.html?origin={quote(origin)}")
        await expect(page.locator("#allow")).not_to_be_empty()
        yield page


@pytest.mark.parametrize(
    ("origin", "lang", "question"),
    [
        (SITE, "en", "Let example.com use your model?"),
        (OTHER, "en", "Let another extension use your model?"),
        (SITE, "de", "Darf die Website example.com dein Modell benutzen?"),
        (OTHER, "de", "Darf eine andere Erweiterung dein Modell benutzen?"),
    ],
)
async def test_it_says_who_asks_for_what(
    origin: str, lang: str, question: str, tmp_path: Path
) -> None:
    async with asking(tmp_path, origin, 460, lang) as page:
        await expect(page.locator("#question")).to_have_text(question)
        await expect(page.locator("#origin")).to_have_text(origin)
        await expect(page.locator("#details")).to_contain_text(
            "“WebLLM Chat”" if lang == "en" else "„WebLLM Chat“"
        )
        assert await violations(page) == []


@pytest.mark.parametrize(("origin", "width"), [(SITE, 1280), (LONG_SITE, 460)])
async def test_it_has_room_in_any_window(origin: str, width: int, tmp_path: Path) -> None:
    """The text is as wide as the window allows, and its end can be scrolled to."""
    async with asking(tmp_path, origin, width) as page:
        details = await page.locator("#details").bounding_box()
        assert details is not None
        assert details["width"] > 350
        root = "document.documentElement"
        assert await page.evaluate(f"{root}.scrollWidth === {root}.clientWidth")
        await page.mouse.wheel(0, 5000)
        await expect(page.locator("#allow")).to_be_in_viewport(ratio=1)
