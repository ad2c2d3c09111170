"""An engine in its own process; `worker_engines` makes the engines."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from fake_model import asked, counted
from fake_worker import FOREVER, SHIFT, read

from webllm import MLCEngineConfig
from webllm.config import DEVICE_SETTINGS
from webllm.errors import ConfigError, DeviceNotFoundError, ModelNotFoundError, WorkerLostError
from webllm.workers.frames import FrameReader, frame
from webllm.workers.process import ProcessPort, create_worker_process
from webllm.workers.proxy import WorkerMLCEngine

NUMBERS = "worker_engines:numbers"


async def start(model: str | None = "numbers.gguf", **settings: Any) -> WorkerMLCEngine:
    config = MLCEngineConfig(**settings)
    return await create_worker_process(model, config, SHIFT, engine_factory=NUMBERS)


def pid_of(engine: WorkerMLCEngine) -> int:
    assert isinstance(engine._client.port, ProcessPort)
    return engine._client.port.pid


def is_alive(pid: int) -> bool:
    """Returns False only for a process that has ended and has been waited for."""
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def num_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


async def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_answers_and_prints_do_not_mix(capfd: pytest.CaptureFixture[str]) -> None:
    reports: list[str] = []
    engine = await start(
        init_progress_callback=lambda report: reports.append(report.text),
        device="cpu",
        num_threads=3,
        kv_cache_tokens=999,
    )
    async with engine:
        assert reports == [str(pid_of(engine))]
        reply = await engine.chat.completions.create(**asked("1", max_tokens=50))
        assert reply.choices[0].message.content == counted(2, 51)
        stream = await engine.completions.create(prompt="1", max_tokens=50, stream=True)
        text = "".join([chunk.choices[0].text async for chunk in stream])
        assert text == counted(2, 51)
    captured = capfd.readouterr()
    assert not captured.out
    assert captured.err == "made with cpu 3 999\nnoise of a library\n"


async def test_closing_leaves_nothing() -> None:
    async with await start():
        pass  # asyncio opens some files once
    before = num_descriptors()
    pids = []
    for _ in range(3):
        async with await start() as engine:
            pids.append(pid_of(engine))
            await engine.close()
    assert num_descriptors() == before
    assert not any(map(is_alive, pids))
    with pytest.raises(WorkerLostError, match="closed"):
        await engine.get_message()


async def test_closing_waits_for_no_answer() -> None:
    async with await start() as engine:
        stream = await engine.completions.create(prompt="1", stream=True, **FOREVER)
        await anext(stream)
        whole = asyncio.create_task(engine.chat_completion(asked("1", **FOREVER)))
        await asyncio.sleep(0)
        await engine.close()
        port = engine._client.port
        assert isinstance(port, ProcessPort)
        assert port._transport.get_returncode() == 0  # it was not killed
        for answer in (whole, anext(stream)):
            with pytest.raises(WorkerLostError):
                await answer


async def test_a_killed_process_fails_what_waits_at_once() -> None:
    async with await start() as engine:
        stream = await engine.completions.create(prompt="1", stream=True, **FOREVER)
        tasks = [
            asyncio.create_task(read(stream)),
            asyncio.create_task(engine.chat_completion(asked("1", **FOREVER))),
        ]
        await asyncio.sleep(0.1)
        os.kill(pid_of(engine), signal.SIGKILL)
        async with asyncio.timeout(30):
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(result).count("killed by signal 9") for result in results] == [1, 1]
        assert {type(result) for result in results} == {WorkerLostError}
        with pytest.raises(WorkerLostError):
            await engine.get_message()


@pytest.mark.parametrize("how", ["restart", "reload"])
async def test_a_killed_process_is_replaced(how: str) -> None:
    async with await start() as engine:
        killed = pid_of(engine)
        os.kill(killed, signal.SIGKILL)
        await until(lambda: engine._client.lost is not None)
        assert not is_alive(killed)
        await (engine.restart() if how == "restart" else engine.reload("numbers.gguf", SHIFT))
        assert pid_of(engine) != killed
        reply = await engine.completions.create(prompt="1", max_tokens=2)
        assert reply.choices[0].text == "2 3 "


async def test_restart_ends_a_process_that_is_stuck() -> None:
    async with await start() as engine:
        stuck = asyncio.create_task(engine.reload("stuck.gguf"))
        await asyncio.sleep(0.1)
        killed = pid_of(engine)
        await engine.restart()
        with pytest.raises(WorkerLostError):
            await stuck
        assert not is_alive(killed)
        await engine.reload("numbers.gguf")


async def test_the_event_loop_stays_responsive() -> None:
    async with await start() as engine:
        loading = asyncio.create_task(engine.reload("slow.gguf"))
        num_turns = 0
        while not loading.done():
            await asyncio.sleep(0.001)
            num_turns += 1
        await loading
        assert num_turns > 20  # the worker blocks for 0.5 s


async def test_cancelling_ends_the_work_in_the_process() -> None:
    async with await start() as engine:
        task = asyncio.create_task(engine.completions.create(prompt="1", **FOREVER))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        said = await engine.get_message()
        await asyncio.sleep(0.05)
        assert await engine.get_message() == said


async def test_errors_while_starting() -> None:
    config = MLCEngineConfig(device="gpu")
    with pytest.raises(DeviceNotFoundError, match="there is no gpu"):
        await create_worker_process(config=config, engine_factory="worker_engines:without_device")
    with pytest.raises(WorkerLostError, match=r"did not start: .* exit code 3"):
        await create_worker_process(engine_factory="worker_engines:exits")
    for name in ("no_such_module:x", "worker_engines:x", "worker_engines"):
        with pytest.raises(ConfigError, match="engine_factory"):
            await create_worker_process(engine_factory=name)
    config = MLCEngineConfig(logit_processor_registry={"m": object()})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="engine_factory='my_module:make_engine'"):
        await create_worker_process(config=config)
    with pytest.raises(ModelNotFoundError):
        await start("no-such-model")


def test_every_setting_crosses_or_stays_on_purpose() -> None:
    crosses_in_messages = {"app_config", "log_level"}
    stays = {"init_progress_callback", "logit_processor_registry"}
    settings = {field.name for field in fields(MLCEngineConfig)} - crosses_in_messages - stays
    assert settings == set(DEVICE_SETTINGS)


async def test_ctrl_c_is_left_to_the_parent() -> None:
    async with await start() as engine:
        os.kill(pid_of(engine), signal.SIGINT)
        assert (await engine.completions.create(prompt="1", max_tokens=1)).choices[0].text == "2 "


async def test_no_python_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/python")
    with pytest.raises(WorkerLostError, match="could be started"):
        await start()


async def test_a_cancelled_start_leaves_no_process() -> None:
    before = num_descriptors()
    for delay_s in (0, 0.02, 0.1, 0.3):
        task = asyncio.create_task(start("stuck.gguf"))
        await asyncio.sleep(delay_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert num_descriptors() <= before + 1  # asyncio's own


async def test_the_process_ends_with_its_parent() -> None:
    program = """
        import asyncio, time
        from test_workers_process import pid_of, start

        async def main():
            engine = await start()
            print(pid_of(engine), flush=True)
            time.sleep(60)

        asyncio.run(main())
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    with parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    await until(lambda: _state(pid) in ("", "Z"))


def _state(pid: int) -> str:
    """Returns the letter of a process's state: "Z" if it has ended without being waited for."""
    ps = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return ps.stdout.strip()[:1]


def test_frames_in_any_pieces() -> None:
    messages = [{"kind": "return", "content": "ä" * n} for n in (0, 5, 300)]
    data = b"".join(map(frame, messages))
    for size in (1, 3, 7, len(data)):
        reader = FrameReader()
        pieces = [data[i : i + size] for i in range(0, len(data), size)]
        assert [message for piece in pieces for message in reader.feed(piece)] == messages
    with pytest.raises(TypeError):
        frame(object())
