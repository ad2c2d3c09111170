"""`webllm extension`: manifest, policy, package and refusals, without a browser."""

import asyncio
import hashlib
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import pytest
from file_server import FileServer, serving
from test_text_chat_template import SMOLLM2
from text_references import PREFIX, byte_level_metadata, train_byte_level
from typer.testing import CliRunner, Result

from webllm import __version__
from webllm.cli import site
from webllm.cli.extension_manifest import (
    PERMISSIONS,
    Access,
    Kind,
    chrome_version,
    content_security_policy,
    extension_id,
    extension_manifest,
    extension_version,
    model_host,
    site_pattern,
)
from webllm.cli.extension_models import fetched_models, model_hosts, remarks
from webllm.cli.extension_package import _NEEDED, _NEEDED_BY_KIND, package_files
from webllm.cli.main import app
from webllm.config import ModelRecord
from webllm.errors import ArtifactError, ConfigError, StorageFullError

WEIGHTS = bytes(range(256)) * 4
EXTENSION_ID = "abcdefghijklmnopabcdefghijklmnop"
MESSAGES = {"appName": {"message": "WebLLM"}, "appDescription": {"message": "Chat"}}


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Writes a minimal site with an extension's files in place of the package's own."""
    folder = tmp_path / "package" / "site"
    others = ("chunk-A.js", "inter.woff2", "icon.svg", "pyodide/pyodide.asm.wasm", "_locales/de/x")
    names = (*site.NEEDED, *_NEEDED, *_NEEDED_BY_KIND[Kind.POPUP], *others, ".built", "models.json")
    for name in (*names, *_NEEDED_BY_KIND[Kind.BACKGROUND]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    for language in ("en", "de"):
        (folder / f"_locales/{language}/messages.json").write_text(json.dumps(MESSAGES))
    monkeypatch.setattr(site, "_PACKAGE", tmp_path / "package")
    monkeypatch.setenv("WEBLLM_HOME", str(tmp_path / "home"))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "My model (v2).gguf"
    file.write_bytes(WEIGHTS)
    return file


def webllm(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["extension", *(str(each) for each in arguments)])


def included(out: Path, model: Path, *arguments: object, kind: str = "popup") -> Result:
    return webllm(out, "--kind", kind, "--include-models", "--model", model, *arguments)


@dataclass
class Package:
    """What was written: the unpacked folder, compared with the archive beside it."""

    folder: Path

    @property
    def files(self) -> dict[str, bytes]:
        files = {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file()
        }
        with zipfile.ZipFile(self.folder.with_name(f"{self.folder.name}.zip")) as archive:
            assert {name: archive.read(name) for name in archive.namelist()} == files
        return files

    def json(self, name: str) -> Any:
        return json.loads(self.files[name])


COMMON = {
    *("popup.html", "popup.js", "popup.css", "_locales/en/messages.json"),
    *("_locales/de/messages.json", "icon-16.png", "icon-32.png", "icon-48.png", "icon-128.png"),
    *("icon.svg", "inter.woff2", "boot.js", "chunk-A.js", "thread.js", "python.snapshot"),
    *("packages.zip", "extensions.zip", "pyodide/pyodide.mjs", "pyodide/pyodide.asm.wasm"),
    *("license.txt", "third-party-notices.txt", "models.json", "manifest.json"),
}
OF_KIND = {
    "popup": {"tab.js"},
    "background": {
        *("background.js", "consent.html", "consent.js"),
        *("offscreen.html", "offscreen.js", "offscreen_worker.js"),
    },
}


@pytest.mark.parametrize("kind", OF_KIND)
def test_a_package_holds_what_its_kind_needs(
    built: Path, model: Path, tmp_path: Path, kind: str
) -> None:
    result = included(tmp_path / "deep" / "out", model, kind=kind)
    assert (result.exit_code, "My model (v2)" in result.stdout) == (0, True), result.stderr
    package = Package(tmp_path / "deep" / "out")
    assert package.files.keys() == COMMON | OF_KIND[kind] | {"models/My-model-v2.gguf"}
    assert package.files["models/My-model-v2.gguf"] == WEIGHTS
    assert package.json("models.json") == {
        "model_list": [
            {
                "model": "models/My-model-v2.gguf",
                "model_id": "My model (v2)",
                "size_bytes": 1024,
                "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
            }
        ],
        "cacheBackend": "none",
    }
    manifest = package.json("manifest.json")
    named = {*manifest["icons"].values(), manifest["action"]["default_popup"]}
    if kind == "background":
        named.add(manifest["background"]["service_worker"])
    assert named <= package.files.keys()
    assert not [name for name in package.files if name.startswith("_") and "_locales/" not in name]


def test_two_runs_write_the_same_bytes(built: Path, model: Path, tmp_path: Path) -> None:
    assert included(tmp_path / "a" / "out", model).exit_code == 0
    for file in [model, *built.rglob("*")]:
        os.utime(file, (2e9, 2e9))
        file.chmod(0o755)
    assert included(tmp_path / "b" / "out", model).exit_code == 0
    first, second = ((tmp_path / each / "out.zip").read_bytes() for each in "ab")
    assert first == second
    assert Package(tmp_path / "a" / "out").files == Package(tmp_path / "b" / "out").files
    with zipfile.ZipFile(tmp_path / "a" / "out.zip") as archive:
        entries = archive.infolist()
    assert [entry.filename for entry in entries] == sorted(entry.filename for entry in entries)
    assert {(entry.date_time, entry.external_attr >> 16) for entry in entries} == {
        ((1980, 1, 1, 0, 0, 0), 0o100644)
    }


def test_the_manifest_of_a_popup() -> None:
    icons = {"16": "icon-16.png", "32": "icon-32.png", "48": "icon-48.png", "128": "icon-128.png"}
    manifest = extension_manifest(Kind.POPUP, "1.2.3", Access())
    policy = manifest.pop("content_security_policy")
    assert manifest == {
        "manifest_version": 3,
        "name": "__MSG_appName__",
        "description": "__MSG_appDescription__",
        "version": "1.2.3",
        "minimum_chrome_version": "124",
        "default_locale": "en",
        "icons": icons,
        "action": {
            "default_title": "__MSG_appName__",
            "default_popup": "popup.html",
            "default_icon": icons,
        },
        "commands": {
            "_execute_action": {
                "suggested_key": {"default": "Ctrl+Shift+Y", "mac": "MacCtrl+Shift+Y"}
            }
        },
        "permissions": ["activeTab", "scripting", "storage"],
        "externally_connectable": {"ids": []},
        "cross_origin_embedder_policy": {"value": "require-corp"},
        "cross_origin_opener_policy": {"value": "same-origin"},
    }
    assert policy == {"extension_pages": content_security_policy(())}


def test_the_manifest_of_a_background() -> None:
    access = Access(("https://a.example",), ("https://b.example/*",), (EXTENSION_ID,))
    manifest = extension_manifest(Kind.BACKGROUND, "1.2.3.dev4", access)
    assert (manifest["version"], manifest["version_name"]) == ("1.2.3", "1.2.3.dev4")
    assert manifest["background"] == {"service_worker": "background.js", "type": "module"}
    assert manifest["permissions"] == ["activeTab", "offscreen", "scripting", "storage"]
    assert manifest["externally_connectable"] == {
        "ids": [EXTENSION_ID],
        "matches": ["https://b.example/*"],
    }


def test_nobody_gets_all_urls_or_hosts() -> None:
    for kind in Kind:
        manifest = extension_manifest(kind, __version__, Access())
        assert not {"host_permissions", "optional_host_permissions", "content_scripts"} & {
            *manifest
        }
        assert "web_accessible_resources" not in manifest
        assert "<all_urls>" not in json.dumps(manifest)
        assert list(PERMISSIONS[kind]) == sorted({*PERMISSIONS[kind]})


def test_the_policy_lets_nothing_else_out() -> None:
    assert content_security_policy(["https://a.example", "https://*.b.example"]).split("; ") == [
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "worker-src 'self'",
        "style-src 'self'",
        "font-src 'self'",
        "img-src 'self'",
        "connect-src 'self' https://a.example https://*.b.example",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]


@pytest.mark.parametrize(
    ("version", "number"),
    [
        ("0.1.0", "0.1.0"),
        ("1", "1"),
        ("1.2rc3", "1.2"),
        ("1.2.3.dev4+local.5", "1.2.3"),
        ("01.2.3.4.5", "1.2.3.4"),
    ],
)
def test_versions(version: str, number: str) -> None:
    assert chrome_version(version) == number


@pytest.mark.parametrize("version", ["", "dev", "0.0.dev1", "1.65536"])
def test_versions_that_chrome_does_not_take(version: str) -> None:
    with pytest.raises(ConfigError, match="1 to 4 numbers"):
        chrome_version(version)


@pytest.mark.parametrize("text", ["1", "0.1", "1.0.2", "65535.0.10.65535"])
def test_a_version_of_one_s_own(built: Path, model: Path, tmp_path: Path, text: str) -> None:
    assert included(tmp_path / "out", model, "--version", text).exit_code == 0
    manifest = Package(tmp_path / "out").json("manifest.json")
    assert (manifest["version"], "version_name" in manifest) == (text, False)


@pytest.mark.parametrize(
    "text",
    [
        *("", "v1.2", "1.2.3.4.5", "65536", "1.70000", "01", "1.02", "0", "0.0.0.0", "1.", ".1"),
        *("1..2", "-1", "+1", "1_0", "1.2rc3", " 1", "1\n", "\u0661", "9" * 5000),
    ],
)
def test_versions_of_one_s_own_that_chrome_does_not_take(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--version is .* 1 to 4 numbers"):
        extension_version(text)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("https://example.com", "https://example.com/*"),
        ("https://example.com/", "https://example.com/*"),
        ("https://*.example.com/chat/*", "https://*.example.com/chat/*"),
        ("http://localhost:8000", "http://localhost:8000/*"),
        ("http://127.0.0.1/a", "http://127.0.0.1/a"),
    ],
)
def test_sites(text: str, pattern: str) -> None:
    assert site_pattern(text) == pattern


@pytest.mark.parametrize(
    "text",
    [
        *("<all_urls>", "*", "example.com", "http://example.com", "*://example.com/*"),
        *("https://*/*", "https://*.com/*", "https://user@example.com", "https://a.example/b c"),
        *("https://example.com\n", "file:///tmp", "chrome-extension://abc/*"),
    ],
)
def test_sites_that_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--allow-site"):
        site_pattern(text)


def test_extensions_and_hosts() -> None:
    assert extension_id(EXTENSION_ID) == EXTENSION_ID
    for text in ("*", EXTENSION_ID[1:], EXTENSION_ID.upper(), EXTENSION_ID.replace("a", "z")):
        with pytest.raises(ConfigError, match="--allow-extension"):
            extension_id(text)
    for text in ("https://cdn.example.com", "cdn.example.com", "https://cdn.example.com/"):
        assert model_host(text) == "https://cdn.example.com"
    assert model_host("*.example.com:444") == "https://*.example.com:444"
    for text in ("*", "*.com", "http://a.example", "a.example; script-src *", "'self'", "https:"):
        with pytest.raises(ConfigError, match="--model-host"):
            model_host(text)


def test_hosts_and_remarks_of_sources() -> None:
    records = [
        ModelRecord(model_id="a", model="hf:o/r/m.gguf", sha256="0" * 64),
        ModelRecord(model_id="b", model="hf:o/r@c0ffee/m.gguf"),
        ModelRecord(model_id="c", model="https://m.example:444/m.gguf"),
        ModelRecord(model_id="d", model="https://m.example:444/n.gguf"),
    ]
    hub = ["https://huggingface.co", "https://*.huggingface.co"]
    hub += ["https://*.hf.co", "https://*.xethub.hf.co"]
    assert model_hosts(records) == [*hub, "https://m.example:444"]
    first, *others = remarks(records)
    assert "hf:o/r@COMMIT/m.gguf" in first
    assert [text.partition(":")[0] for text in others] == ["c", "d"]
    assert all("--model-host" in text for text in others)


def gguf_file(folder: Path, template: str | None) -> bytes:
    """Returns a file with a vocabulary and perhaps a template, but no weights to speak of."""
    file = folder / "made.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    for key, value in byte_level_metadata(train_byte_level()).items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_string(key, str(value))
    if template is not None:
        writer.add_string(f"{PREFIX.replace('ggml.', '')}chat_template", template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file.read_bytes()


def test_a_fetched_model_gets_a_builtin_template(built: Path, tmp_path: Path) -> None:
    with serving(FileServer()) as server:
        server.body = gguf_file(tmp_path, SMOLLM2)
        arguments = ("--model", server.url, "--model-host", "cdn.example.com", "--name", "A $ & ä")
        result = webllm(tmp_path / "out", "--kind", "background", *arguments)
    assert (result.exit_code, "--model-host" in result.stderr) == (0, True), result.stderr
    package = Package(tmp_path / "out")
    assert package.files.keys() == COMMON | OF_KIND["background"]
    assert package.json("models.json") == {
        "model_list": [
            {
                "model": server.url,
                "model_id": "model",
                "overrides": {"builtin_template": "smollm2"},
                "size_bytes": len(server.body),
                "sha256": hashlib.sha256(server.body).hexdigest(),
            }
        ]
    }
    policy = package.json("manifest.json")["content_security_policy"]["extension_pages"]
    host = server.url.removesuffix("/model.gguf")
    assert f"connect-src 'self' {host} https://cdn.example.com;" in policy
    for language in ("en", "de"):
        messages = package.json(f"_locales/{language}/messages.json")
        assert messages["appName"]["message"] == "A $$ & ä"


@pytest.mark.parametrize(
    ("template", "said"),
    [("{{ messages }}", "--include-models"), (None, None)],
)
def test_a_fetched_model_s_own_template_is_not_run(
    built: Path, tmp_path: Path, template: str | None, said: str | None
) -> None:
    """A file without one gets that of its vocabulary."""
    with serving(FileServer()) as server:
        server.body = gguf_file(tmp_path, template)
        find = fetched_models([server.url], lambda report: None)
        if said is None:
            (found,) = asyncio.run(find)
            assert found.record.overrides is not None
            assert found.record.overrides.builtin_template == "chatml"
        else:
            with pytest.raises(ConfigError, match=said):
                asyncio.run(find)


def test_a_template_of_the_catalogue_stays(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(FileServer()) as server:
        server.body = gguf_file(tmp_path, "{{ messages }}")
        sha256 = hashlib.sha256(server.body).hexdigest()
        conv_template = {"roles": {"user": "U", "assistant": "A"}, "seps": ["\n"]}
        records: list[dict[str, Any]] = [
            {"model_id": "a", "model": server.url, "overrides": {"conv_template": conv_template}},
            {"model_id": "b", "model": server.url, "overrides": {"builtin_template": "gemma"}},
            {"model_id": "c", "model": server.url, "sha256": "0" * 64},
        ]
        catalogue = tmp_path / "catalogue.json"
        catalogue.write_text(json.dumps({"model_list": records}))
        monkeypatch.setenv("WEBLLM_MODELS", str(catalogue))
        out = tmp_path / "out"
        result = webllm(out, "--kind", "popup", "--model", "a", "--model", "b")
        refused = webllm(tmp_path / "other", "--kind", "popup", "--model", "c")
    assert result.exit_code == 0, result.stderr
    size_bytes = len(server.body)
    assert Package(out).json("models.json")["model_list"] == [
        {**record, "size_bytes": size_bytes, "sha256": sha256} for record in records[:2]
    ]
    assert (refused.exit_code, "0000" in refused.stderr) == (1, True)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "--kind"),
        (("--kind", "tab"), 2, "popup"),
        (("--kind", "popup"), 1, "cannot fetch; put it into the package with --include-models"),
        (("--kind", "popup", "--model", "./absent.gguf"), 1, "--include-models"),
        (("--kind", "popup", "--model", "hf:o/r/a.gguf", "--model", "hf:o/s/a.gguf"), 1, "twice"),
        (("--kind", "popup", "--model", "./a.gguf", "--include-models"), 1, "does not exist"),
        (("--kind", "popup", "--allow-site", "https://a.example"), 2, "--kind background"),
        (("--kind", "popup", "--allow-extension", EXTENSION_ID), 2, "--kind background"),
        (("--kind", "background", "--allow-site", "<all_urls>"), 1, "--allow-site"),
        (("--kind", "background", "--allow-extension", "*"), 1, "--allow-extension"),
        (("--kind", "popup", "--include-models", "--model-host", "a.b"), 2, "contradict"),
        (("--kind", "popup", "--version", "1.0-beta"), 1, "--version is '1.0-beta'"),
        (("--kind", "popup", "--name", " "), 1, "--name"),
        (("--kind", "popup", "--name", "x" * 76), 1, "75 at most"),
        (("--kind", "popup", "--name", "a\tb"), 1, "--name"),
    ],
)
def test_refusals_write_nothing(
    built: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    result = webllm(tmp_path / "out", *arguments)
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.zip").exists()


def test_what_it_did_not_write_stays(built: Path, model: Path, tmp_path: Path) -> None:
    out, archive = tmp_path / "out", tmp_path / "out.zip"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    assert "is not empty" in included(out, model).stderr
    assert included(out, model, "--force").exit_code == 0
    assert (out / "thesis.txt").read_text() == "mine"
    with zipfile.ZipFile(archive) as file:
        assert "thesis.txt" not in file.namelist()
    assert "contains an earlier extension" in included(out, model).stderr
    other = tmp_path / "other.zip"
    other.write_text("mine")
    assert f"{other} exists" in included(tmp_path / "other", model).stderr
    assert (other.read_text(), (tmp_path / "other").exists()) == ("mine", False)
    (tmp_path / "third.zip").mkdir()
    assert "is a folder" in included(tmp_path / "third", model, "--force").stderr
    assert "no name" in included(Path("/"), model).stderr
    assert "the site's own folder" in included(built / "out", model).stderr
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("link", [False, True])
def test_a_model_that_lies_in_the_folder_stays(built: Path, tmp_path: Path, link: bool) -> None:
    file = tmp_path / "out" / "models" / "model.gguf"
    file.parent.mkdir(parents=True)
    source = tmp_path / "model.gguf" if link else file
    source.write_bytes(WEIGHTS)
    if link:
        file.symlink_to(source)
    assert included(tmp_path / "out", source, "--force").exit_code == 0
    assert (source.read_bytes(), file.read_bytes()) == (WEIGHTS, WEIGHTS)
    assert (file.is_symlink(), list(tmp_path.rglob("*.part"))) == (False, [])


def test_odd_folders(built: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("mine")
    for name, said in {
        "dangling": "is a link to nothing",
        "loop": "is a link to nothing",
        "file": "is a file",
        "file/out": "Not a directory",
        "n" * 300: "File name too long",
        "n" * 252: "File name too long",  # of its archive
    }.items():
        result = included(tmp_path / name, model)
        assert (result.exit_code, said in result.stderr) == (1, True), (name, result)
    for name in ("ünï 漢字", "a\nb"):
        assert included(tmp_path / name, model).exit_code == 0
        assert Package(tmp_path / name).files


@pytest.mark.parametrize("name", ["popup.js", "offscreen.js", "_locales/en/messages.json"])
def test_a_site_without_the_extension_s_files(
    built: Path, model: Path, tmp_path: Path, name: str
) -> None:
    (built / name).unlink()
    result = included(tmp_path / "out", model, kind="background")
    assert (result.exit_code, result.stdout) == (1, "")
    assert name in result.stderr
    assert "make site" in result.stderr
    popup = included(tmp_path / "out", model)
    assert popup.exit_code == (0 if name == "offscreen.js" else 1)


def test_texts_that_the_manifest_names_are_there(built: Path, model: Path, tmp_path: Path) -> None:
    (built / "_locales/en/messages.json").write_text('{"appName": {"message": "WebLLM"}}')
    result = included(tmp_path / "out", model)
    assert (result.exit_code, "appDescription" in result.stderr) == (1, True)


def test_a_full_disk_leaves_no_extension(
    built: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, num_bytes: int, what: object, advice: str) -> None:
        raise StorageFullError(f"{what} needs {num_bytes} bytes more")

    monkeypatch.setattr("webllm.cli.extension_package.require_space", full)
    result = included(tmp_path / "out", model)
    assert (result.exit_code, "the extension needs" in result.stderr) == (1, True)
    assert not (tmp_path / "out" / "manifest.json").exists()
    with pytest.raises(ArtifactError, match="lacks the extension's"):
        package_files(tmp_path, Kind.POPUP)
