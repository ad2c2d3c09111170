"""A folder for the daemons of a test, and an end to them."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from webllm.workers.daemon_client import stop_daemon
from webllm.workers.daemon_files import DaemonFiles

HERE = Path(__file__).parent


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[DaemonFiles]:
    """The files of the daemon that clients find meanwhile; it knows this folder's modules."""
    folder = Path(tempfile.mkdtemp(prefix="webllm-test-"))  # tmp_path is too long for a socket
    monkeypatch.setenv("WEBLLM_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("WEBLLM_HOME", str(folder / "home"))
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{HERE.parent}")
    monkeypatch.delenv("WEBLLM_DAEMON_IDLE_S", raising=False)
    yield DaemonFiles(folder)
    monkeypatch.setenv("WEBLLM_RUNTIME_DIR", str(folder))
    folder.chmod(0o700)
    asyncio.run(stop_daemon())
    shutil.rmtree(folder)
