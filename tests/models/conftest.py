"""Real models; the first run fetches them into the artifact store (WEBLLM_HOME moves it)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from golden import compare


@pytest.fixture(scope="session")
def smollm2() -> Path:
    return asyncio.run(compare.model_path("smollm2-135m"))


@pytest.fixture(scope="session")
def gemma3() -> Path:
    return asyncio.run(compare.model_path("gemma3-270m"))
