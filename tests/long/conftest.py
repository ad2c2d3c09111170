"""Collects the figures of this tier: each test prints its own, and --save keeps those of a run."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from results import Figures, machine_name, save

from long.figures import SEED, AddFigures

COLLECTED = pytest.StashKey[Figures]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--save",
        nargs="?",
        const=machine_name(),
        metavar="MACHINE",
        help="write the figures of a run without failures into benchmarks/results",
    )


def pytest_configure(config: pytest.Config) -> None:
    figures: Figures = {"seed": SEED}
    config.stash[COLLECTED] = figures


def pytest_report_header() -> str:
    return f"seed: {SEED} (LONG_SEED repeats it)"


@pytest.fixture
def add_figures(request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]) -> AddFigures:
    """A function that prints a line of figures and adds them to those of the run."""

    def add(name: str, figures: Mapping[str, float]) -> None:
        shown = ", ".join(f"{figure} {value:.6g}" for figure, value in figures.items())
        with capfd.disabled():
            print(f"\n{name} (seed {SEED}): {shown}", flush=True)
        collected = request.config.stash[COLLECTED]
        collected |= {f"{name}, {figure}": value for figure, value in figures.items()}

    return add


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    machine = session.config.getoption("--save", None)  # not there if pytest began elsewhere
    if machine and exitstatus == pytest.ExitCode.OK:
        save("test_long", machine, session.config.stash[COLLECTED])
