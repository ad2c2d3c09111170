"""The engine that a user's programs share; `worker_engines` makes the engines."""

from __future__ import annotations

import asyncio
import math
import os
import random
import shutil
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from daemons import files
from fake_model import asked, counted
from fake_worker import FOREVER

from webllm import AppConfig, MLCEngineConfig, ModelRecord
from webllm.errors import ConfigError, DeviceNotFoundError, RequestError, WorkerLostError
from webllm.workers import daemon_client
from webllm.workers.daemon import Control, DaemonStatus
from webllm.workers.daemon_client import (
    DaemonMLCEngine,
    create_service_worker_mlc_engine,
    daemon_status,
    start_daemon,
    stop_daemon,
)
from webllm.workers.daemon_files import DaemonFiles
from webllm.workers.frames import frame
from webllm.workers.start import ask_first
from webllm.workers.unix_socket import connect

__all__ = ["files"]  # a fixture


async def client(
    model: str | None = "numbers.gguf", factory: str = "numbers", **arguments: Any
) -> DaemonMLCEngine:
    return await create_service_worker_mlc_engine(
        model, engine_factory=f"worker_engines:{factory}", **arguments
    )


async def status() -> DaemonStatus:
    found = await daemon_status()
    assert found is not None
    return found


async def kill(number: int = signal.SIGKILL) -> None:
    os.kill((await status()).pid, number)


async def until_gone(files: DaemonFiles) -> None:
    async with asyncio.timeout(30):
        while files.read_pid() is not None:
            await asyncio.sleep(0.01)


async def text_of(stream: AsyncGenerator[Any, None]) -> str:
    return "".join([chunk.choices[0].text async for chunk in stream])


async def test_clients_at_once_start_one_daemon_and_load_once(files: DaemonFiles) -> None:
    engines = await asyncio.gather(*(client() for _ in range(8)))
    answers = await asyncio.gather(
        *(
            engine.completions.create(prompt=str(i), max_tokens=5)
            for i, engine in enumerate(engines)
        )
    )
    assert [each.choices[0].text for each in answers] == [counted(i + 1, i + 5) for i in range(8)]
    found = await status()
    assert (found.clients, found.socket) == (8, str(files.socket))
    assert [model.model_id for model in found.engine.models] == ["numbers"]
    assert files.log.read_text().count("made with") == 1
    assert files.log.read_text().count("noise of a library") == 1
    for engine in engines:
        await engine.close()


async def test_the_second_client_finds_the_model_loaded(files: DaemonFiles) -> None:
    async with await client():
        reports: list[float] = []
        config = MLCEngineConfig(init_progress_callback=lambda r: reports.append(r.progress))
        async with await client(config=config) as second:
            assert reports == [1.0]
            reply = await second.chat.completions.create(**asked("1", max_tokens=3))
            assert reply.choices[0].message.content == counted(2, 4)
        async with await client(None) as third:  # whatever is loaded
            reply = await third.chat.completions.create(**asked("1", max_tokens=3))
            assert reply.choices[0].message.content == counted(2, 4)
    assert files.log.read_text().count("noise of a library") == 1


async def test_other_settings_are_refused_by_name(files: DaemonFiles) -> None:
    async with await client(config=MLCEngineConfig(num_threads=3)):
        said = r"num_threads is 4, .* runs with 3; leave it out, .* `webllm daemon stop`"
        with pytest.raises(ConfigError, match=said):
            await client(config=MLCEngineConfig(num_threads=4))
        with pytest.raises(ConfigError, match="engine_factory is 'worker_engines:attaching'"):
            await client(factory="attaching")
        async with await create_service_worker_mlc_engine():
            assert (await status()).clients == 2  # without settings of its own


async def test_an_engine_that_cannot_be_made_leaves_a_daemon_that_can(files: DaemonFiles) -> None:
    config = MLCEngineConfig(device="gpu")
    with pytest.raises(DeviceNotFoundError, match="there is no gpu"):
        await client(factory="without_device", config=config)
    with pytest.raises(ConfigError, match="engine_factory"):
        await client(factory="no_such_name")
    async with await client():
        assert (await status()).settings["device"] == "auto"


@pytest.mark.parametrize("factory", ["attaching", "numbers"])
async def test_a_stream_goes_on_in_the_next_daemon(files: DaemonFiles, factory: str) -> None:
    async with await client(factory=factory) as engine:
        stream = await engine.completions.create(prompt="100", max_tokens=100, stream=True)
        texts: list[str] = []
        pids = set()
        async for chunk in stream:
            texts += [choice.text for choice in chunk.choices]
            assert all(choice.token_ids is None for choice in chunk.choices)
            if len(texts) in (1, 20, 40):
                pids.add((await status()).pid)
                await kill()
        assert "".join(texts) == counted(101, 200)
        assert len(pids | {(await status()).pid}) == 4
        async with asyncio.timeout(30):
            while await engine.list_resumable_sessions():  # until it is deleted
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("factory", ["attaching", "numbers"])
async def test_a_killed_daemon_loses_and_doubles_no_token(files: DaemonFiles, factory: str) -> None:
    async with await client(factory=factory) as one, await client(factory=factory) as other:
        streams = [
            await engine.completions.create(prompt=str(100 * i), max_tokens=90, stream=True)
            for i, engine in enumerate([one, other] * 2)
        ]
        texts = [asyncio.create_task(text_of(stream)) for stream in streams]
        whole = asyncio.create_task(one.completions.create(prompt="500", max_tokens=90))
        for _ in range(3):
            await asyncio.sleep(random.uniform(0.02, 0.1))
            if found := await daemon_status():
                os.kill(found.pid, signal.SIGKILL)
        assert await asyncio.gather(*texts) == [
            counted(100 * i + 1, 100 * i + 90) for i in range(len(streams))
        ]
        assert (await whole).choices[0].text == counted(501, 590)


async def test_a_daemon_that_is_killed_while_it_loads(files: DaemonFiles) -> None:
    async with await client(None) as engine:
        reports: list[str] = []
        loading = asyncio.create_task(
            engine.reload("slow.gguf", on_progress=lambda report: reports.append(report.text))
        )
        while not reports:
            await asyncio.sleep(0.01)
        pid = files.read_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await loading
        reply = await engine.completions.create(prompt="1", max_tokens=2)
        assert (reply.model, reply.choices[0].text) == ("slow", "2 3 ")
        assert len(set(reports)) == 2  # process ids


async def test_the_next_request_starts_a_daemon_that_was_stopped(files: DaemonFiles) -> None:
    async with await client() as engine:
        assert await stop_daemon() is not None
        assert await daemon_status() is None
        assert await engine.device_name() == "fake"
        reply = await engine.completions.create(prompt="1", max_tokens=2)
        assert reply.choices[0].text == "2 3 "


@pytest.mark.parametrize("how", ["stop", "SIGTERM"])
async def test_stopping_ends_answers_under_way(files: DaemonFiles, how: str) -> None:
    async with await client() as engine:
        endless: Any = {**FOREVER, "extra_body": {"context_overflow": "shift"}}
        stream = await engine.completions.create(prompt="1", stream=True, **endless)
        whole = asyncio.create_task(engine.chat.completions.create(**asked("1", **endless)))
        first = await anext(stream)
        stopping = asyncio.create_task(stop_daemon() if how == "stop" else kill(signal.SIGTERM))
        reasons = [chunk.choices[0].finish_reason async for chunk in stream]
        assert first.choices[0].finish_reason is None
        assert reasons[-1] == "abort"
        assert (await whole).choices[0].finish_reason == "abort"
        await stopping
        await until_gone(files)
        assert await daemon_status() is None
        assert await stop_daemon() is None


async def test_closing_ends_this_clients_answers_alone(files: DaemonFiles) -> None:
    async with await client() as other:
        engine = await client()
        stream = await engine.completions.create(prompt="1", stream=True, **FOREVER)
        whole = asyncio.create_task(engine.completions.create(prompt="1", **FOREVER))
        theirs = await other.completions.create(prompt="1", stream=True, **FOREVER)
        await anext(stream)
        await anext(theirs)
        await engine.close()
        for ended in (whole, anext(stream)):
            with pytest.raises(WorkerLostError, match="closed"):
                await ended
        with pytest.raises(WorkerLostError, match="closed"):
            await engine.reload("numbers.gguf")
        await anext(theirs)
        assert len(await other.list_resumable_sessions()) == 1
        async with asyncio.timeout(10):
            while (found := await status()).clients > 1 or found.engine.models[0].running > 1:
                await asyncio.sleep(0.01)
        await theirs.aclose()


async def test_without_persistence_a_loss_is_an_error(files: DaemonFiles) -> None:
    async with await client(persist=False) as engine:
        stream = await engine.completions.create(prompt="1", stream=True, **FOREVER)
        await anext(stream)
        await kill()
        with pytest.raises(WorkerLostError):
            await text_of(stream)
        reply = await engine.completions.create(prompt="1", max_tokens=2)
        assert reply.choices[0].text == "2 3 "


async def test_a_request_that_ends_every_daemon_is_given_up(files: DaemonFiles) -> None:
    async with await client(factory="dying") as engine:
        with pytest.raises(WorkerLostError, match=r"5 workers in a row .* change it before"):
            await engine.completions.create(prompt="13")
        reply = await engine.completions.create(prompt="1", max_tokens=2)
        assert reply.choices[0].text == "2 3 "


async def test_it_ends_when_nobody_uses_it(
    files: DaemonFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBLLM_DAEMON_IDLE_S", "0.3")
    async with await client():
        await asyncio.sleep(0.6)
        assert (await status()).idle_s == 0.3
    await until_gone(files)
    assert not files.socket.exists()
    for text in ("soon", "0", "-5", "nan", "inf"):
        monkeypatch.setenv("WEBLLM_DAEMON_IDLE_S", text)
        with pytest.raises(ConfigError, match=f"WEBLLM_DAEMON_IDLE_S is '{text}'; give a number"):
            await client()


async def test_a_first_message_of_another_version_is_an_error_with_a_way_out(
    files: DaemonFiles,
) -> None:
    async with await client(None):
        for message in ({"uuid": "u"}, {"uuid": "u", "command": "explode"}):
            port = await connect(files.socket)
            assert port is not None
            with pytest.raises(RequestError, match="webllm daemon stop"):
                await ask_first(port, message)


async def test_what_a_killed_daemon_leaves_is_replaced(files: DaemonFiles) -> None:
    async with await client():
        pid = (await status()).pid
        assert files.read_pid() == pid
        await kill()
        await until_gone(files)
    assert files.socket.exists()
    assert files.read_pid() is None
    assert await daemon_status() is None
    assert await stop_daemon() is None
    async with await client():
        assert files.read_pid() == (await status()).pid != pid


async def test_a_daemon_that_hangs(files: DaemonFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    async with await client(keep_alive_s=0.5) as engine:
        pid = (await status()).pid
        stream = await engine.completions.create(prompt="1", stream=True, **FOREVER)
        os.kill(pid, signal.SIGSTOP)
        with monkeypatch.context() as impatient:  # a process that runs may need longer
            impatient.setattr(daemon_client, "_REPLY_S", 0.3)
            impatient.setattr(daemon_client, "_STOP_S", 0.3)
            with pytest.raises(WorkerLostError, match=rf"process {pid}, has not answered"):
                await text_of(stream)
            with pytest.raises(WorkerLostError, match="has not answered"):
                await daemon_status()
            assert await stop_daemon() == pid
        reply = await engine.completions.create(prompt="1", max_tokens=2)
        assert reply.choices[0].text == "2 3 "


async def test_peers_that_send_nonsense_harm_nobody(files: DaemonFiles) -> None:
    generator = random.Random(12)
    start = {"uuid": "u", "engine_factory": "worker_engines:numbers", "settings": {}}
    nonsense = [
        *(generator.randbytes(generator.randrange(1, 300)) for _ in range(40)),
        *(len(body).to_bytes(4, "little") + body for body in map(generator.randbytes, range(40))),
        frame({"uuid": "u"}),
        frame({"uuid": "u", "command": "explode"}),
        frame({**start, "settings": {"device": 3}}),
        frame({**start, "settings": {"nonsense": 3}}),
        frame(start) + generator.randbytes(100),
        frame(start) + frame({"kind": "reload", "uuid": "r", "content": 5}),
        frame(start) + frame({"kind": "chatCompletionStreamInit", "uuid": "r"}) + b"\xff" * 9,
        frame(start) * 3,
    ]
    async with await client() as engine:
        stream = await engine.completions.create(prompt="1", stream=True, **FOREVER)
        for data in nonsense:
            _, writer = await asyncio.open_unix_connection(files.socket)
            writer.write(data)
            await writer.drain()
            await anext(stream)
            writer.close()
        silent = await connect(files.socket)
        assert silent is not None
        await stream.aclose()
        assert (await engine.completions.create(prompt="1", max_tokens=2)).choices[0].text == "2 3 "
        await silent.close()
    assert "Traceback" not in files.log.read_text()


async def test_a_client_that_never_reads_disturbs_nobody(files: DaemonFiles) -> None:
    async with await client() as engine:
        deaf = await connect(files.socket)
        assert deaf is not None
        start = {"uuid": "u", "engine_factory": "worker_engines:numbers", "settings": {}}
        await ask_first(deaf, start)
        deaf._transport.pause_reading()
        for i in range(3000):
            deaf.post({"kind": "nonsense" * 20, "uuid": str(i), "content": None})
        deaf.post({"kind": "completionStreamInit", "uuid": "s", "content": {"streamId": "s"}})
        assert (await engine.completions.create(prompt="1", max_tokens=2)).choices[0].text == "2 3 "
        await deaf.close()


async def test_only_its_user_can_reach_it(files: DaemonFiles) -> None:
    async with await client():
        assert files.socket.stat().st_mode & 0o777 == 0o600
        assert files.folder.stat().st_mode & 0o777 == 0o700
    await stop_daemon()
    files.folder.chmod(0o755)
    for call in (client, daemon_status, stop_daemon, start_daemon):
        with pytest.raises(ConfigError, match=r"is open to other users \(mode 755\).*chmod 700"):
            await call()
    files.folder.chmod(0o700)


def test_where_its_files_are(files: DaemonFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBLLM_RUNTIME_DIR", "")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(files.folder))
    assert DaemonFiles.find().folder == files.folder / "webllm"
    assert (files.folder / "webllm").stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(files.folder))
    assert DaemonFiles.find().folder == files.folder / f"webllm-{os.getuid()}"

    def find(folder: Path) -> None:
        monkeypatch.setenv("WEBLLM_RUNTIME_DIR", str(folder))
        DaemonFiles.find()

    with pytest.raises(ConfigError, match=r"has \d+ bytes, and a socket's path has at most"):
        find(files.folder / ("long" * 30))
    (files.folder / "link").symlink_to(files.folder)
    with pytest.raises(ConfigError, match="is no folder"):
        find(files.folder / "link")
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: 12345)
        with pytest.raises(ConfigError, match="and you are 12345"):
            find(files.folder)
    files.log.touch()
    with pytest.raises(ConfigError, match="cannot be used"):
        find(files.log / "below")


def test_a_large_log_is_emptied(files: DaemonFiles) -> None:
    files.trim_log()
    files.log.write_bytes(b"x" * 2_000_000)
    files.trim_log()
    assert files.log.stat().st_size == 0


async def test_paths_are_those_of_the_client(
    files: DaemonFiles, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.gguf").touch()
    record = ModelRecord(model="here.gguf", model_id="mine")
    config = MLCEngineConfig(app_config=AppConfig(model_list=(record,)))
    async with await client("here.gguf", config=config) as engine:
        assert engine._models.model_id == [str(tmp_path / "here.gguf")]
        assert engine.loaded_model_ids() == ["here"]
        await engine.reload("mine")
        assert engine._app_config is not None
        assert engine._app_config.model_list[0].model == str(tmp_path / "here.gguf")


async def test_a_daemon_that_cannot_be_started(
    files: DaemonFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/no/python")
        with pytest.raises(WorkerLostError, match="could not be started"):
            await client()
    with monkeypatch.context() as patch:
        patch.setattr(daemon_client, "_BOOT", "raise SystemExit('broken')")
        with pytest.raises(WorkerLostError, match=r"did not start; .*daemon\.log may say why"):
            await client()
    assert "broken" in files.log.read_text()


async def test_a_daemon_that_is_killed_while_it_starts(
    files: DaemonFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = str(files.folder / "killed")
    kill_first = f"os.path.exists({killed!r}) or (os.mkdir({killed!r}), os.kill(os.getpid(), 9))"
    boot = f"import os; {kill_first}; {daemon_client._BOOT}"
    monkeypatch.setattr(daemon_client, "_BOOT", boot)
    async with await client():
        assert (files.folder / "killed").exists()


async def test_a_folder_that_is_removed(files: DaemonFiles) -> None:
    async with await client() as engine:
        earlier = (await status()).pid
        shutil.rmtree(files.folder)
        async with await client():
            later = (await status()).pid
            os.kill(earlier, signal.SIGTERM)
            while engine._client.lost is None:
                await asyncio.sleep(0.01)
            assert await engine.device_name() == "fake"
            assert (await status()).pid == files.read_pid() == later != earlier


async def test_a_socket_that_is_removed(files: DaemonFiles) -> None:
    async with await client() as engine:
        pid = (await status()).pid
        files.socket.unlink()
        assert await daemon_status() is None
        assert await engine.device_name() == "fake"
        assert await stop_daemon() == pid
        assert await engine.device_name() == "fake"
        assert (await status()).pid != pid


async def test_a_daemon_whose_starter_is_gone_waits_for_no_other(files: DaemonFiles) -> None:
    lock = files.lock()
    assert lock.try_acquire()
    starting = asyncio.create_task(client())
    while not files.log.exists():
        await asyncio.sleep(0.01)
    starting.cancel()
    async with asyncio.timeout(20):  # less than the time for which it waits otherwise
        while "the starter of this is gone" not in files.log.read_text():
            await asyncio.sleep(0.01)
    lock.release()


async def test_stopping_waits_for_no_later_daemon(
    files: DaemonFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_client, "_POLL_S", 0.5)  # the other one looks more often
    async with await client():
        earlier = (await status()).pid
        size = files.log.stat().st_size
        starting = asyncio.create_task(daemon_client._launch(files, 600))
        assert await stop_daemon() == earlier
        await starting
        assert (await status()).pid == files.read_pid() != earlier
        assert files.log.stat().st_size == size  # the later one has nothing to say


async def test_a_daemon_of_another_version(
    files: DaemonFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LaterStatus(DaemonStatus, kw_only=True, frozen=True):
        more: int

    async with await client():
        pid = (await status()).pid
        with monkeypatch.context() as patch:
            patch.setattr(daemon_client, "DaemonStatus", LaterStatus)
            with pytest.raises(WorkerLostError, match=r"another version .* missing .* `more`"):
                await daemon_status()
            assert await stop_daemon() == pid


@pytest.mark.parametrize("keep_alive_s", [0, -1, math.nan, "10"])
async def test_heartbeats_have_an_interval(files: DaemonFiles, keep_alive_s: Any) -> None:
    with pytest.raises(ConfigError, match=f"keep_alive_s is {keep_alive_s!r}; give a number"):
        await client(keep_alive_s=keep_alive_s)


async def test_a_second_daemon_waits_for_the_first(files: DaemonFiles) -> None:
    lock = files.lock()
    assert lock.try_acquire()
    starting = asyncio.create_task(client())
    while not files.log.exists():
        await asyncio.sleep(0.01)
    lock.release()
    async with await starting:
        assert (await status()).clients == 1


async def test_status_is_no_client(files: DaemonFiles) -> None:
    found = await start_daemon(idle_s=300)
    assert (found.idle_s, found.engine.models) == (300, [])
    with pytest.raises(ConfigError, match="ends after 5 minutes without clients, not after 10"):
        await start_daemon(idle_s=600)
    port = await connect(files.socket)
    assert port is not None
    reply = await ask_first(port, Control(uuid="u", command="status"))
    await port.wait_closed()  # by the daemon
    assert reply["clients"] == 0
    await port.close()
