"""`make test` and `make check` install the needs of their tiers only."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SITE, CHROMIUM, VULKAN = "js/wheels.py", "need Chromium", "need a Vulkan driver"


@pytest.mark.parametrize(
    ("arguments", "needs"),
    [
        ([], {SITE, CHROMIUM, VULKAN}),
        (["TIERS=tests"], {SITE, CHROMIUM, VULKAN}),
        (["TIERS=tests/unit"], set()),
        (["TIERS=tests/unit tests/models"], set()),
        (["TIERS=tests/unit/test_makefile.py"], set()),
        (["TIERS=tests/gpu"], {VULKAN}),
        (["TIERS=tests/browser/test_page.py"], {SITE, CHROMIUM}),
    ],
)
def test_a_tier_brings_its_own_needs(arguments: list[str], needs: set[str]) -> None:
    planned = _planned("test", *arguments)
    assert {need for need in (SITE, CHROMIUM, VULKAN) if need in planned} == needs
    assert "/pytest " in planned


def test_check_lints_and_needs_neither_a_browser_nor_a_gpu_nor_the_site() -> None:
    planned = _planned("check")
    assert not [need for need in (SITE, CHROMIUM, VULKAN) if need in planned]
    assert all(part in planned for part in ("/ruff check", "/mypy", "run --silent check"))
    (tests,) = [line for line in planned.splitlines() if "/pytest " in line]
    assert tests.endswith(" tests/unit")


def test_the_long_tier_keeps_its_figures() -> None:
    planned = _planned("test-long")
    assert VULKAN in planned
    assert "/pytest tests/long --save" in planned


def _planned(target: str, *arguments: str) -> str:
    """Returns the commands that a fresh checkout would run."""
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    command = ["make", "--always-make", "--dry-run", target, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
