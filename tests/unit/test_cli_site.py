"""The site of `webllm web` and `webllm bundle`: files written, served and refused."""

import hashlib
import http.client
import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner, Result

from webllm.cli import bundle, site, web
from webllm.cli.main import app
from webllm.cli.site_models import SiteModel, site_models
from webllm.cli.site_server import HEADERS, byte_range
from webllm.config import ModelRecord
from webllm.errors import ArtifactError, ConfigError, IntegrityError, StorageFullError

WEIGHTS = bytes(range(256)) * 4
TAG = '  <meta name="service-worker" content="sw.js" />\n'


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Writes a minimal site in place of the package's own."""
    folder = tmp_path / "package" / "site"
    for name in (*site.NEEDED, "models.json", "pyodide/pyodide.asm.wasm", "page.mjs", ".built"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "index.html").write_text(f"<head>\n{TAG}</head>\n")
    listed = {"index.html": "", "worker.js": "00", "absent.js": "00"}
    (folder / "sw.js").write_text(f"self.webllmFiles = {json.dumps(listed)};\nwork();\n")
    monkeypatch.setattr(site, "_PACKAGE", tmp_path / "package")
    monkeypatch.setenv("WEBLLM_HOME", str(tmp_path / "home"))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "My model (v2).gguf"
    file.write_bytes(WEIGHTS)
    return file


def webllm(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_holds_the_site_and_its_models(built: Path, model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"other")
    out = tmp_path / "deep" / "out"
    result = webllm("bundle", out, "--model", model, "--model", other)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "My model (v2), other" in result.stdout
    names = {"models/My-model-v2.gguf", "models/other.gguf"}
    assert files(out) == (files(built) - {".built"}) | names
    assert (out / "models/My-model-v2.gguf").read_bytes() == WEIGHTS
    records = json.loads((out / "models.json").read_text())["model_list"]
    assert records[0] == {
        "model": "models/My-model-v2.gguf",
        "model_id": "My model (v2)",
        "size_bytes": 1024,
        "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
    }
    assert len(records) == 2


def test_a_bundle_without_a_model(built: Path, tmp_path: Path) -> None:
    assert webllm("bundle", tmp_path / "out", "--no-model").exit_code == 0
    assert json.loads((tmp_path / "out" / "models.json").read_text())["model_list"] == []


def hashes_in(script: bytes) -> dict[str, str]:
    line, _, code = script.partition(b"\n")
    assert code == b"work();\n"
    listed: dict[str, str] = json.loads(line.removeprefix(b"self.webllmFiles = ").rstrip(b";"))
    return listed


def test_a_bundle_s_service_worker_lists_its_files(built: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert webllm("bundle", out, "--no-model").exit_code == 0
    page = (out / "index.html").read_bytes()
    assert hashes_in((out / "sw.js").read_bytes()) == {
        "index.html": hashlib.sha256(page).hexdigest(),
        "worker.js": hashlib.sha256(b"worker.js").hexdigest(),
    }
    assert TAG.encode() in page


def test_a_bundle_without_a_service_worker(built: Path, tmp_path: Path) -> None:
    """Also over an earlier one that has one."""
    out = tmp_path / "out"
    assert webllm("bundle", out, "--no-model", "--service-worker").exit_code == 0
    arguments = ("--no-model", "--no-service-worker", "--force")
    assert webllm("bundle", out, *arguments).exit_code == 0
    assert files(out) == files(built) - {".built", "sw.js"}
    assert (out / "index.html").read_text() == "<head>\n</head>\n"


def test_a_service_worker_of_another_build_is_refused(built: Path, tmp_path: Path) -> None:
    (built / "sw.js").write_text("work();\n")
    result = webllm("bundle", tmp_path / "out", "--no-model")
    assert (result.exit_code, "make site" in result.stderr) == (1, True)


def test_a_folder_that_is_not_empty_needs_force(built: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    result = webllm("bundle", out, "--model", model)
    assert (result.exit_code, files(out)) == (1, {"thesis.txt"})
    assert "is not empty" in result.stderr
    assert webllm("bundle", out, "--model", model, "--force").exit_code == 0
    assert (out / "thesis.txt").read_text() == "mine"
    assert "contains an earlier bundle" in webllm("bundle", out, "--model", model).stderr
    with pytest.raises(ConfigError, match="is a file"):
        bundle.check_folder(model, built, force=True)
    with pytest.raises(ConfigError, match="the site's own folder"):
        bundle.check_folder(built / "out", built, force=True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--model", "absent.gguf"), 1, "does not exist"),
        (("--model", "SmolLM9"), 1, "no model called"),
        (("--model", "a.gguf", "--no-model"), 2, "contradict"),
        (("--model", "x/a.gguf", "--model", "y/a.gguf"), 1, "given twice, or named like"),
    ],
)
def test_refusals_write_nothing(
    built: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    result = webllm("bundle", tmp_path / "out", *arguments)
    assert result.exit_code == code
    assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_without_a_built_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "_PACKAGE", tmp_path / "src" / "webllm")
    with pytest.raises(ArtifactError, match="WEBLLM_BUILD_SITE=1"):
        site.site_folder()
    (tmp_path / "js").mkdir()
    (tmp_path / "js" / "build.mjs").touch()
    with pytest.raises(ArtifactError, match="make site"):
        site.site_folder()


def test_a_site_of_links_says_so(built: Path, tmp_path: Path) -> None:
    shutil.move(built / "worker.js", tmp_path / "worker.js")
    (built / "worker.js").symlink_to(tmp_path / "worker.js")
    with pytest.raises(ArtifactError, match=r"links to files elsewhere.*--link-mode copy"):
        site.site_folder()


def test_what_cannot_be_written_is_an_error(
    built: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = ModelRecord(model="models/m.gguf", model_id="m", sha256="0" * 64)
    out = tmp_path / "out"
    with pytest.raises(IntegrityError, match="webllm rm m"):
        bundle.write_bundle(built, [SiteModel(record, {record.model: model})], out)
    assert not (out / "models.json").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="cannot be read or written"):
        bundle.write_bundle(built, [], tmp_path / "file" / "out")
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(StorageFullError, match="1000 bytes free"):
        bundle.write_bundle(built, [SiteModel(record, {record.model: model})], out)


@contextmanager
def served(models: list[SiteModel]) -> Iterator[http.client.HTTPConnection]:
    with web.open_server(models, 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        yield connection
        connection.close()
        server.shutdown()
        thread.join()


def get(
    connection: http.client.HTTPConnection, path: str, method: str = "GET", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=named)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def test_the_server_has_the_site_and_the_models(built: Path, model: Path) -> None:
    record = ModelRecord(model="models/m.gguf", model_id="m")
    with served([SiteModel(record, {record.model: model})]) as connection:
        status, headers, body = get(connection, "/")
        page = (built / "index.html").read_bytes()
        assert (status, body) == (200, page)
        assert {name: headers[name] for name in HEADERS} == HEADERS
        for path, kind in [
            ("/pyodide/pyodide.asm.wasm", "application/wasm"),
            ("/page.mjs", "text/javascript; charset=utf-8"),
            ("/packages.zip?v=1", "application/zip"),
            ("/models/m.gguf", "application/octet-stream"),
        ]:
            status, headers, _ = get(connection, path)
            assert (status, headers["Content-Type"]) == (200, kind)
        status, headers, worker = get(connection, "/sw.js")
        assert (headers["Content-Type"], headers["Cache-Control"]) == (
            "text/javascript; charset=utf-8",
            "no-cache",
        )
        assert hashes_in(worker)["index.html"] == hashlib.sha256(page).hexdigest()
        assert get(connection, "/models.json", "HEAD")[1]["Cache-Control"] == "no-cache"
        (listed,) = json.loads(get(connection, "/models.json")[2])["model_list"]
        assert listed["model"].startswith("models/m.gguf?")  # another URL for another file
        assert get(connection, f"/{listed['model']}")[2] == WEIGHTS
        for path in ("/absent", "/.built", "/../secret", "/%2e%2e/secret", "/models", "/a%00b"):
            status, headers, _ = get(connection, path)
            assert (status, headers["Cross-Origin-Embedder-Policy"]) == (404, "require-corp")


def test_the_server_resumes_and_revalidates(built: Path, model: Path) -> None:
    record = ModelRecord(model="models/m.gguf", model_id="m", sha256="0" * 64)
    path = "/models/m.gguf"
    with served([SiteModel(record, {record.model: model})]) as connection:
        _, headers, body = get(connection, path, "HEAD")
        tag = headers["ETag"]
        assert (headers["Content-Length"], headers["Accept-Ranges"], body) == ("1024", "bytes", b"")
        status, headers, body = get(connection, path, Range="bytes=1000-", If_Range=tag)
        assert (status, headers["Content-Range"]) == (206, "bytes 1000-1023/1024")
        assert body == WEIGHTS[1000:]
        assert get(connection, path, Range="bytes=1000-", If_Range='"old"')[::2] == (200, WEIGHTS)
        status, headers, body = get(connection, path, Range="bytes=1024-")
        assert (status, headers["Content-Range"], body) == (416, "bytes */1024", b"")
        assert get(connection, path, If_None_Match=tag)[::2] == (304, b"")
        assert get(connection, "/")[0] == 200  # the connection is still in step


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("bytes=0-0", range(1)),
        ("bytes=2-", range(2, 10)),
        ("bytes=2-99", range(2, 10)),
        ("bytes=-3", range(7, 10)),
        ("bytes=-99", range(10)),
        ("bytes=10-", range(10, 10)),
        ("bytes=-0", range(10, 10)),
        *((each, None) for each in (None, "bytes=5-2", "bytes=-", "bytes=0-1,3-4", "lines=1-2")),
    ],
)
def test_ranges(header: str | None, wanted: range | None) -> None:
    assert byte_range(header, 10) == wanted


def test_a_port_in_use(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} .* another --port"):
            web.open_server([], port)
        monkeypatch.setattr(web, "DEFAULT_PORT", port)
        with web.open_server([], None) as server:
            assert server.server_port != port


@pytest.fixture
def split(tmp_path: Path) -> dict[str, bytes]:
    """Writes a model of two files into the folder "split"."""
    parts = {f"m-0000{part}-of-00002.gguf": bytes([part]) * 9 for part in (1, 2)}
    (tmp_path / "split").mkdir()
    for name, data in parts.items():
        (tmp_path / "split" / name).write_bytes(data)
    return parts


def listed_in(catalogue: bytes) -> dict[str, str | int]:
    (listed,) = json.loads(catalogue)["model_list"]
    assert isinstance(listed, dict)
    return listed


def test_a_model_of_several_files_has_a_folder_on_a_site(
    built: Path, split: dict[str, bytes], tmp_path: Path
) -> None:
    assert webllm("bundle", tmp_path / "one", "--model", tmp_path / "split").exit_code == 0
    assert webllm("bundle", tmp_path / "two", "--model", tmp_path / "split").exit_code == 0
    one, two = (
        listed_in((tmp_path / each / "models.json").read_bytes()) for each in ("one", "two")
    )
    assert one == two
    assert one["size_bytes"] == 18
    entry = tmp_path / "one" / str(one["model"])
    assert {file.name: file.read_bytes() for file in entry.parent.iterdir()} == split
    assert entry.name == "m-00001-of-00002.gguf"
    (tmp_path / "split" / "m-00002-of-00002.gguf").write_bytes(b"another")
    assert (
        webllm("bundle", tmp_path / "two", "--model", tmp_path / "split", "--force").exit_code == 0
    )
    two = listed_in((tmp_path / "two" / "models.json").read_bytes())
    assert two["model"] != one["model"]  # browsers store it by its URL


async def test_the_server_has_all_files_of_a_model(
    built: Path, split: dict[str, bytes], tmp_path: Path
) -> None:
    models = await site_models([str(tmp_path / "split")], lambda report: None)
    with served(models) as connection:
        listed = listed_in(get(connection, "/models.json")[2])
        folder, _, entry = str(listed["model"]).rpartition("/")
        assert entry == "m-00001-of-00002.gguf"
        for name, data in split.items():
            assert get(connection, f"/{folder}/{name}")[2] == data
        served_at = listed["model"]
    later = tmp_path.stat().st_mtime + 100
    os.utime(tmp_path / "split" / "m-00002-of-00002.gguf", (later, later))
    with served(await site_models([str(tmp_path / "split")], lambda report: None)) as connection:
        assert listed_in(get(connection, "/models.json")[2])["model"] != served_at
