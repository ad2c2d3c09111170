"""The shared engine is killed; what its clients receive stays the same to the last bit."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from golden.daemon_kills import Clients
from webllm.workers.daemon_client import stop_daemon


@pytest.fixture
async def clients(
    smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Clients]:
    with tempfile.TemporaryDirectory() as folder:  # its path is short enough for a socket
        monkeypatch.setenv("WEBLLM_RUNTIME_DIR", folder)
        monkeypatch.setenv("WEBLLM_HOME", str(tmp_path))
        clients = Clients()
        try:
            await clients.open(str(smollm2))
            yield clients
        finally:
            await clients.close()
            await stop_daemon()


async def test_killed_in_prefill_in_decode_and_while_it_loads_again(clients: Clients) -> None:
    expected = await clients.answers()
    kills = []

    def kill(moment: str) -> None:
        if moment not in kills:
            kills.append(moment)
            assert clients.kill()

    clients.on_begun = lambda: kill("prefill")
    clients.on_chunk = lambda num_chunks: kill("decode") if num_chunks > 99 else None
    clients.on_progress = lambda: kill("load") if kills == ["prefill", "decode"] else None
    assert await clients.answers() == expected
    assert kills == ["prefill", "decode", "load"]
