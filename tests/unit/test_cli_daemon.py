"""`webllm daemon start`, `status` and `stop`, with real processes."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from daemons import files
from typer.testing import CliRunner, Result

from webllm.cli.main import app
from webllm.workers import daemon_client
from webllm.workers.daemon_client import create_service_worker_mlc_engine, daemon_status
from webllm.workers.daemon_files import DaemonFiles

__all__ = ["files"]  # a fixture


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["daemon", *arguments])


def pid(files: DaemonFiles) -> int:
    found = files.read_pid()
    assert found is not None
    return found


def test_from_start_to_stop(files: DaemonFiles) -> None:
    result = run("status")
    assert (result.exit_code, result.stderr) == (3, "")
    assert result.stdout.startswith("The shared engine does not run. `webllm daemon start` starts")
    result = run("start", "--idle-minutes", "5", "--threads", "2")
    assert result.exit_code == 0
    process = pid(files)
    assert result.stdout == f"The shared engine runs: process {process}, {files.socket}\n"
    assert run("start").stdout == result.stdout
    result = run("status")
    assert result.exit_code == 0
    assert f"process   {process}, webllm " in result.stdout
    assert "settings  device auto, num_threads 2" in result.stdout
    assert "ends      after 5 minutes without clients\n" in result.stdout
    assert "clients   0\nmodels    none\n" in result.stdout
    result = run("stop")
    assert result.exit_code == 0
    assert result.stdout == f"The shared engine, process {process}, has ended.\n"
    result = run("stop")
    assert (result.exit_code, result.stderr) == (0, "The shared engine does not run.\n")


def test_what_differs_is_refused(files: DaemonFiles) -> None:
    assert run("start", "--idle-minutes", "5").exit_code == 0
    result = run("start", "--device", "cpu")
    assert result.exit_code == 1
    assert "device is 'cpu', and the shared engine of this user runs with 'auto'" in result.stderr
    result = run("start", "--idle-minutes", "6")
    assert result.exit_code == 1
    assert "ends after 5 minutes without clients, not after 6" in result.stderr
    assert run("start", "--idle-minutes", "soon").exit_code == 2


async def test_status_shows_models_and_answers(files: DaemonFiles) -> None:
    engine = await create_service_worker_mlc_engine(
        "numbers.gguf", engine_factory="worker_engines:numbers"
    )
    async with engine:
        stream = await engine.completions.create(
            prompt="1", max_tokens=200, ignore_eos=True, stream=True
        )
        await anext(stream)
        result = await asyncio.to_thread(run, "status")
        assert "clients   1\nmodels    numbers\n" in result.stdout
        row = result.stdout.splitlines()[-1]
        assert "answering  waiting  free KV blocks" in result.stdout
        assert row.split()[:2] == ["numbers", "fake"]
        assert row.split()[-2:] == ["of", "64"]
        await stream.aclose()


def test_a_daemon_that_hangs(files: DaemonFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_client, "_REPLY_S", 0.3)
    monkeypatch.setattr(daemon_client, "_STOP_S", 0.3)
    assert run("start").exit_code == 0
    process = pid(files)
    os.kill(process, signal.SIGSTOP)
    result = run("status")
    assert result.exit_code == 1
    assert f"process {process}, has not answered for" in result.stderr
    assert "`webllm daemon stop`" in result.stderr
    assert run("stop").stdout == f"The shared engine, process {process}, has ended.\n"
    assert asyncio.run(daemon_status()) is None
