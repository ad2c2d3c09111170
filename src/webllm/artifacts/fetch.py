"""Downloads one file over https, resuming where it broke off and hashing on the way.

A download resumes if the server still has the same version (ETag or Last-Modified, and size);
otherwise it starts over. Broken connections, timeouts, bodies that end early and the statuses 408,
429 and 5xx are retried; any other refusal is final.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from webllm.artifacts.destination import RemoteVersion
from webllm.artifacts.job import FetchJob
from webllm.artifacts.retry import RetryPolicy, retry_after_s
from webllm.artifacts.source import HTTPSource, require_safe_url
from webllm.errors import ConfigError, FetchError, ModelNotFoundError

if TYPE_CHECKING:
    import httpx


_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]+/([0-9]{1,18}|\*)")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at a URL, with its size and hash if they are known beforehand."""

    url: str
    sha256: str | None = None
    size: int | None = None  # bytes
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold a token


class _BrokenError(Exception):
    """The attempt failed, but another may succeed."""

    def __init__(self, reason: str, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.pause_s = pause_s  # the pause that the server asked for


async def fetch_http(source: HTTPSource, job: FetchJob) -> str:
    """Downloads `source` into the job's partial file; see `download`."""
    return await download(RemoteFile(source.url, source.sha256), job)


async def download(remote: RemoteFile, job: FetchJob) -> str:
    """Downloads `remote` into the job's partial file; returns its SHA-256 in hex.

    Raises ModelNotFoundError for 404 and 410, FetchError if the server refuses or the retries are
    used up (received bytes are kept), StorageFullError before the first byte if the file does not
    fit, IntegrityError if its size or hash is wrong (the bytes are deleted).
    """
    partial, retry = job.partial, job.options.retry
    await asyncio.to_thread(partial.recover)
    furthest, failures = partial.num_bytes, 0
    async with _client() as client:
        while not partial.num_bytes or partial.num_bytes != partial.version.size:
            try:
                await _attempt(client, remote, job)
                break
            except _BrokenError as broken:
                failures = 1 if partial.num_bytes > furthest else failures + 1
                furthest = max(furthest, partial.num_bytes)
                if failures >= retry.attempts:
                    raise FetchError(
                        f"{remote.url} failed {failures} times in a row; last error: {broken}; "
                        f"{partial.num_bytes} bytes are stored: try again to resume"
                    ) from broken.__cause__
                await asyncio.sleep(_pause_s(broken, retry, failures))
    return job.verify(remote.size, remote.sha256)


def _client() -> httpx.AsyncClient:
    try:
        import httpx
    except ImportError:
        raise ConfigError("a download needs httpx; install webllm[native]") from None
    try:
        return httpx.AsyncClient(follow_redirects=True, timeout=httpx.Timeout(30.0, read=60.0))
    except Exception as error:  # every unusable setting has its own exception
        raise FetchError(
            f"downloads cannot be set up: {error}; check the proxies (HTTPS_PROXY, ALL_PROXY) and "
            "certificates (SSL_CERT_FILE) of this machine"
        ) from error


def _pause_s(broken: _BrokenError, retry: RetryPolicy, failures: int) -> float:
    pause_s = retry.pause_s(failures)
    if broken.pause_s is None:
        return pause_s
    if broken.pause_s > retry.max_retry_after_s:
        raise FetchError(
            f"{broken}: the server asks to wait {broken.pause_s:.0f} s; try again later"
        )
    return max(broken.pause_s, pause_s)


async def _attempt(client: httpx.AsyncClient, remote: RemoteFile, job: FetchJob) -> None:
    import httpx

    try:
        headers = _request_headers(remote, job)
        async with client.stream("GET", remote.url, headers=headers) as response:
            _accept(response, remote, job)
            await _receive(response, job)
    except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as error:
        raise FetchError(f"{remote.url} cannot be fetched: {error!r}; check the URL") from error
    except httpx.HTTPError as error:
        raise _BrokenError(f"the connection broke ({error!r})") from error


def _request_headers(remote: RemoteFile, job: FetchJob) -> dict[str, str]:
    """Headers that ask for the missing bytes, if the server can tell that the file is unchanged."""
    headers = {**remote.headers, "Accept-Encoding": "identity"}
    version = job.partial.version
    if job.partial.num_bytes and version.identified:
        headers["Range"] = f"bytes={job.partial.num_bytes}-"
        strong = version.etag if version.etag and not version.etag.startswith("W/") else None
        validator = strong or version.last_modified  # RFC 9110, 13.1.5: no weak ETag
        if validator and validator.isascii():  # a header holds no other text
            headers["If-Range"] = validator
    return headers


def _accept(response: httpx.Response, remote: RemoteFile, job: FetchJob) -> None:
    """Checks a response: its body is the rest of the file or the whole; anything else raises."""
    partial = job.partial
    version, start = _describe(response)
    resumable = start == partial.num_bytes and version.same_as(partial.version)
    if response.status_code in (206, 416) and not resumable:
        partial.restart(RemoteVersion())
        raise _BrokenError("the file changed on the server")
    _check_status(response)
    if remote.size is not None and version.size not in (None, remote.size):
        job.reject(f"the server has {version.size} bytes, expected {remote.size}")
    if response.status_code == 200:
        partial.restart(version)


def _check_status(response: httpx.Response) -> None:
    status, url = response.status_code, str(response.url)
    try:
        require_safe_url(url)
    except ConfigError as error:
        raise FetchError(f"the server redirects to an address that is not safe: {error}") from None
    if status in (404, 410):
        raise ModelNotFoundError(f"{url} does not exist ({status}); check the name")
    if status in (408, 429) or status >= 500:
        pause_s = retry_after_s(response.headers.get("Retry-After"))
        raise _BrokenError(f"the server answered {status} {response.reason_phrase}", pause_s)
    if status not in (200, 206):
        hint = "it needs a login or a licence accepted" if status in (401, 403) else "check the URL"
        raise FetchError(f"{url} is refused ({status} {response.reason_phrase}); {hint}")
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise FetchError(f"{url} arrives compressed as {encoding!r}, which was not requested")


def _describe(response: httpx.Response) -> tuple[RemoteVersion, int | None]:
    """Returns a response's version, and the offset of its body; None if that is malformed."""
    headers = response.headers
    length = headers.get("Content-Length", "")
    start: int | None = 0
    if response.status_code == 206:
        match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        start, length = (int(match[1]), match[2]) if match else (None, "")
    size = int(length) if length.isdecimal() else None
    return RemoteVersion(headers.get("ETag"), headers.get("Last-Modified"), size), start


async def _receive(response: httpx.Response, job: FetchJob) -> None:
    partial, total = job.partial, job.partial.version.size
    if total is not None:
        job.require_space(total - partial.num_bytes)
    async for chunk in response.aiter_raw():
        if total is not None and partial.num_bytes + len(chunk) > total:
            job.reject(f"the server sends more than the {total} bytes it announced")
        partial.append(chunk)
        job.report(total)
    if total is not None and partial.num_bytes < total:
        raise _BrokenError(f"the body ended after {partial.num_bytes} of {total} bytes")
