"""Downloads from a server on this machine that breaks off, changes, lies and refuses."""

import asyncio
import multiprocessing
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from file_server import BODY, PART, SHA, Departure, FileServer, serving

from webllm.artifacts import hub
from webllm.artifacts.fetch_source import FetchOptions
from webllm.artifacts.progress import InitProgressReport
from webllm.artifacts.resolve import ensure_artifact
from webllm.artifacts.retry import RetryPolicy
from webllm.artifacts.source import HTTPSource, HubSource
from webllm.artifacts.store import DirectoryStore
from webllm.artifacts.transfer import RemoteFile
from webllm.errors import (
    FetchError,
    IntegrityError,
    ModelNotFoundError,
    StorageFullError,
    WebLLMError,
)

QUICK = FetchOptions(RetryPolicy(attempts=4, first_pause_s=0.001))


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(FileServer()) as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def leftovers(store: DirectoryStore) -> list[str]:
    """The names of the files in partial/ that are not empty."""
    return [p.name for p in (store.root / "partial").glob("*.part") if p.stat().st_size]


async def test_download_is_stored_and_reported(server: FileServer, store: DirectoryStore) -> None:
    reports: list[InitProgressReport] = []
    path = await ensure_artifact(server.url, store, reports.append, QUICK)
    assert path.read_bytes() == BODY
    assert path.name == f"sha256-{SHA}"
    assert (reports[-1].progress, reports[-1].loaded_bytes) == (1.0, len(BODY))
    assert reports[-1].text == "Fetching model: 8.8 of 8.8 MB"
    assert not list((store.root / "partial").iterdir())
    assert await ensure_artifact(server.url, store) == path
    assert server.ranges == [None]


async def test_broken_connections_are_resumed(server: FileServer, store: DirectoryStore) -> None:
    server.script = [
        Departure(cut=PART + 100_000),
        Departure(cut=50_000),
        Departure(status=503),
        Departure(cut=0),
    ]
    path = await ensure_artifact(server.url, store, None, QUICK)
    assert path.read_bytes() == BODY
    assert server.ranges == [
        *(None, f"bytes={PART + 100_000}-"),
        *[f"bytes={PART + 150_000}-"] * 3,
    ]


async def test_next_run_goes_on_where_the_last_ended(
    server: FileServer, store: DirectoryStore
) -> None:
    server.script = [Departure(cut=PART + 100_000), *[Departure(status=500)] * 4]
    with pytest.raises(FetchError, match=rf"failed 4 times in a row.*{PART} bytes are stored"):
        await ensure_artifact(server.url, store, None, QUICK)
    assert leftovers(store)
    path = await ensure_artifact(server.url, DirectoryStore(store.root), None, QUICK)
    assert path.read_bytes() == BODY
    assert server.ranges[-1] == f"bytes={PART}-"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"ETag": '"v1"'}, {"ETag": '"v2"'}),
        ({"ETag": 'W/"v1"'}, {"ETag": 'W/"v2"'}),
        ({"Last-Modified": "Monday"}, {"Last-Modified": "Tuesday"}),
        ({"ETag": '"v1"'}, {"Last-Modified": "Tuesday"}),
        ({}, {}),
    ],
)
async def test_changed_file_starts_over(
    server: FileServer, store: DirectoryStore, before: dict[str, str], after: dict[str, str]
) -> None:
    server.headers = before
    server.script = [Departure(cut=PART + 100_000), *[Departure(status=500)] * 4]
    with pytest.raises(FetchError):
        await ensure_artifact(server.url, store, None, QUICK)
    server.headers, server.body = after, BODY[::-1]
    path = await ensure_artifact(server.url, store, None, QUICK)
    assert path.read_bytes() == BODY[::-1]


async def test_changed_size_starts_over(server: FileServer, store: DirectoryStore) -> None:
    server.script = [Departure(cut=PART + 100_000), *[Departure(status=500)] * 4]
    with pytest.raises(FetchError):
        await ensure_artifact(server.url, store, None, QUICK)
    server.body = BODY[:5000]  # same ETag; the server has no second part: 416
    path = await ensure_artifact(server.url, store, None, QUICK)
    assert path.read_bytes() == BODY[:5000]


@pytest.mark.parametrize("departure", [Departure(ignore_range=True), Departure(shift=10)])
async def test_wrong_ranges_start_over(
    server: FileServer, store: DirectoryStore, departure: Departure
) -> None:
    server.script = [Departure(cut=PART + 100_000), departure]
    path = await ensure_artifact(server.url, store, None, QUICK)
    assert path.read_bytes() == BODY


async def test_complete_partial_needs_no_server(server: FileServer, store: DirectoryStore) -> None:
    source = HTTPSource(server.url)
    server.script = [Departure(cut=PART + 100_000), *[Departure(status=500)] * 4]
    with pytest.raises(FetchError):
        await ensure_artifact(source, store, None, QUICK)
    partial = store.partial(source)
    await partial.recover()
    for part in (1, 2):
        await partial.put(part, [BODY[part * PART :][:PART]])
    requests = len(server.ranges)
    assert (await ensure_artifact(source, store, None, QUICK)).read_bytes() == BODY
    assert len(server.ranges) == requests


async def test_corrupt_bytes_are_dropped(server: FileServer, store: DirectoryStore) -> None:
    server.body = BODY[:-1] + b"\0"
    with pytest.raises(IntegrityError, match=f"expected {SHA}"):
        await ensure_artifact(f"{server.url}#sha256={SHA}", store, None, QUICK)
    assert not list((store.root / "partial").iterdir())
    assert store.entries() == []
    server.body = BODY
    assert await ensure_artifact(f"{server.url}#sha256={SHA}", store, None, QUICK)


async def test_length_that_is_a_lie(server: FileServer, store: DirectoryStore) -> None:
    server.script = [Departure(extra_length=10)] * 20
    with pytest.raises(FetchError, match="failed"):
        await ensure_artifact(server.url, store, None, QUICK)
    server.script = [Departure(extra_length=-10)]  # nothing after that length is read
    path = await ensure_artifact(server.url, store, None, QUICK)
    assert path.read_bytes() in (BODY, BODY[:-10])
    with pytest.raises(IntegrityError):
        await ensure_artifact(f"{server.url}#sha256={'0' * 64}", store, None, QUICK)


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, ModelNotFoundError), (403, FetchError), (401, FetchError), (400, FetchError)],
)
async def test_refusals_are_final(
    server: FileServer, store: DirectoryStore, status: int, error: type[WebLLMError]
) -> None:
    server.script = [Departure(status=status)]
    with pytest.raises(error, match=str(status)):
        await ensure_artifact(server.url, store, None, QUICK)
    assert len(server.ranges) == 1


async def test_retry_after(server: FileServer, store: DirectoryStore) -> None:
    server.script = [
        Departure(status=429, headers={"Retry-After": "0"}),
        Departure(status=503, headers={"Retry-After": "3600"}),
    ]
    with pytest.raises(FetchError, match="asks to wait 3600 s"):
        await ensure_artifact(server.url, store, None, QUICK)
    assert len(server.ranges) == 2


async def test_compressed_and_unsafe_answers(server: FileServer, store: DirectoryStore) -> None:
    server.headers = {"Content-Encoding": "gzip"}
    with pytest.raises(FetchError, match="gzip"):
        await ensure_artifact(server.url, store, None, QUICK)
    server.headers = {}
    server.script = [Departure(status=302, headers={"Location": server.url + "2"})]
    assert (await ensure_artifact(server.url, store, None, QUICK)).read_bytes() == BODY
    server.script = [Departure(status=302, headers={"Location": "ftp://127.0.0.1/x"})]
    with pytest.raises(FetchError):
        await ensure_artifact(server.url + "?3", store, None, QUICK)
    assert len(server.ranges) == 4


async def test_no_server(store: DirectoryStore) -> None:
    options = FetchOptions(RetryPolicy(attempts=2, first_pause_s=0.001))
    with pytest.raises(FetchError, match="the connection broke"):
        await ensure_artifact("http://127.0.0.1:1/m.gguf", store, None, options)


async def test_no_space(
    server: FileServer, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(StorageFullError, match=rf"{len(BODY)} bytes more.*1000 bytes free"):
        await ensure_artifact(server.url, store, None, QUICK)
    assert not leftovers(store)


async def test_cancelled_download_is_resumed(server: FileServer, store: DirectoryStore) -> None:
    server.script = [Departure(cut=PART + 100_000)]
    slow = FetchOptions(RetryPolicy(first_pause_s=60.0))
    task = asyncio.create_task(ensure_artifact(server.url, store, None, slow))
    while not leftovers(store):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ensure_artifact(server.url, store, None, QUICK)
    assert server.ranges == [None, f"bytes={PART}-"]


async def test_tasks_that_want_the_same_fetch_once(
    server: FileServer, store: DirectoryStore
) -> None:
    reports: list[InitProgressReport] = []
    paths = await asyncio.gather(
        *(ensure_artifact(server.url, store, reports.append, QUICK) for _ in range(3))
    )
    assert len(set(paths)) == len(server.ranges) == 1
    assert any("another process" in report.text for report in reports)


def _pull(url: str, root: Path, options: FetchOptions) -> None:
    asyncio.run(ensure_artifact(url, DirectoryStore(root), None, options))


def test_processes_that_want_the_same_fetch_once(server: FileServer, store: DirectoryStore) -> None:
    context = multiprocessing.get_context("spawn")
    arguments = (server.url, store.root, QUICK)
    processes = [context.Process(target=_pull, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert store.path(HTTPSource(server.url)).read_bytes() == BODY
    assert len(server.ranges) == 1


async def test_killed_process_leaves_a_download_to_resume(
    server: FileServer, store: DirectoryStore
) -> None:
    server.script = [Departure(cut=PART + 100_000)]
    slow = FetchOptions(RetryPolicy(first_pause_s=600.0))
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_pull, args=(server.url, store.root, slow))
    process.start()
    part = store.partial(HTTPSource(server.url))
    while 0 not in (await part.recover())[1]:
        await asyncio.sleep(0.02)
    process.kill()
    process.join()
    assert (await ensure_artifact(server.url, store, None, QUICK)).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={PART}-"]


async def test_sources_with_the_same_hash_fetch_once(
    server: FileServer, store: DirectoryStore
) -> None:
    first = await ensure_artifact(server.url, store, None, QUICK)
    second = await ensure_artifact(f"{server.url}?mirror#sha256={SHA}", store, None, QUICK)
    third = await ensure_artifact(server.url + "?other", store, None, QUICK)
    assert first == second == third
    assert len(server.ranges) == 2
    assert [path.name for path in (store.root / "blobs").glob("*[!4]")] == [f"sha256-{SHA}"]


async def test_hub_file_is_located_then_downloaded(
    server: FileServer, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[HubSource] = []

    def locate(source: HubSource) -> RemoteFile:
        asked.append(source)
        return RemoteFile(server.url, SHA, len(BODY), {"Authorization": "Bearer token"})

    monkeypatch.setattr(hub, "locate", locate)
    path = await ensure_artifact("hf:owner/repo@main/m.gguf", store, None, QUICK)
    assert path.read_bytes() == BODY
    assert asked == [HubSource("owner/repo", "m.gguf", "main")]
    server.body = BODY[:-1]
    with pytest.raises(IntegrityError, match=f"expected {len(BODY)}"):
        await ensure_artifact("hf:owner/repo/m.gguf", store, None, QUICK)


def test_hub_metadata_becomes_a_remote_file(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, OfflineModeIsEnabled

    found = SimpleNamespace(etag=SHA, size=5)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url: found)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "secret")
    source = HubSource("owner/repo", "a/m.gguf", "v1")
    remote = hub.locate(source)
    assert remote.url.endswith("/owner/repo/resolve/v1/a/m.gguf")
    assert (remote.sha256, remote.size) == (SHA, 5)
    assert remote.headers == {"Authorization": "Bearer secret"}
    assert "secret" not in repr(remote)
    found.etag = "0" * 40
    assert hub.locate(source).sha256 is None

    for error, expected in [
        (EntryNotFoundError("no"), ModelNotFoundError),
        (OfflineModeIsEnabled("off"), FetchError),
    ]:

        def fail(url: str, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", fail)
        with pytest.raises(expected):
            hub.locate(source)


HUGE = "9" * 5000


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "\xb2"},
        {"Retry-After": "Mon, 01 Jan 0001 00:00:00 GMT"},
        {"Retry-After": "soon"},
    ],
)
async def test_pauses_without_sense(
    server: FileServer, store: DirectoryStore, headers: dict[str, str]
) -> None:
    server.script = [Departure(status=503, headers=headers)]
    assert (await ensure_artifact(server.url, store, None, QUICK)).read_bytes() == BODY
    server.script = [Departure(status=503, headers={"Retry-After": HUGE})]
    with pytest.raises(FetchError, match="asks to wait"):
        await ensure_artifact(server.url + "?2", store, None, QUICK)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": f"bytes {HUGE}-{HUGE}/{HUGE}"},
        {"Content-Range": f"bytes 100000-{HUGE}/*"},
        {"Content-Range": "bytes \xb2-5/7"},
    ],
)
async def test_ranges_without_sense(
    server: FileServer, store: DirectoryStore, headers: dict[str, str]
) -> None:
    server.script = [Departure(cut=PART + 100_000), Departure(status=206, headers=headers)]
    assert (await ensure_artifact(server.url, store, None, QUICK)).read_bytes() == BODY


async def test_a_version_that_no_header_can_hold(server: FileServer, store: DirectoryStore) -> None:
    server.headers = {"ETag": '"\xe9"'}
    server.script = [Departure(cut=PART + 100_000)]
    assert (await ensure_artifact(server.url, store, None, QUICK)).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={PART + 100_000}-"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "nonsense://127.0.0.1:1"),
        ("ALL_PROXY", "http://[::1"),
        ("SSL_CERT_FILE", "/dev/null/absent.pem"),
    ],
)
async def test_settings_that_cannot_be_used(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(FetchError, match=r"check the proxies .* and certificates"):
        await ensure_artifact("https://127.0.0.1:1/m.gguf", store, None, QUICK)
