"""Faults in the offscreen document and its workers fail a test, though Playwright knows neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from browser.extensions import running, write_fake_package

FETCH = 'fetch("https://{}.test/").catch(() => {{}});'
SCRIPTS = {
    "offscreen.js": FETCH.format("document") + 'setTimeout(() => { throw "an error" });',
    "offscreen_worker.js": FETCH.format("worker") + 'new Worker("nested.js");',
    "nested.js": FETCH.format("nested"),
}
FAULTS = (*(f"https://{where}.test/" for where in ("document", "worker", "nested")), "an error")
OPEN = """chrome.offscreen.createDocument({
    url: "offscreen.html", reasons: ["WORKERS"], justification: "test",
})"""


async def open_offscreen(folder: Path) -> None:
    async with running(folder) as extension:
        await (await extension.background()).evaluate(OPEN)
        await extension.until_logged(FAULTS)


async def test_faults_in_the_offscreen_document_and_its_workers(tmp_path: Path) -> None:
    folder = write_fake_package(tmp_path, has_background=True)
    for name, script in SCRIPTS.items():
        with (folder / name).open("a") as file:
            file.write(f"\n{script}\n")
    with pytest.raises(AssertionError) as caught:
        await open_offscreen(folder)
    assert [fault for fault in FAULTS if fault not in str(caught.value)] == []


async def test_a_fault_that_is_expected_has_to_appear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_fake_package(tmp_path, has_background=True)
    with pytest.raises(AssertionError, match=r"not logged: \['an error'\]"):
        async with running(folder, expected_faults=["an error"]):
            monkeypatch.setattr("browser.extensions.TIMEOUT_S", 0)
