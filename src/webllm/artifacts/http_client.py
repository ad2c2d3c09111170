"""Requests of files with httpx."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from webllm.artifacts.response_head import BrokenError, Head
from webllm.artifacts.source import require_safe_url
from webllm.errors import ConfigError, FetchError

if TYPE_CHECKING:
    import httpx

_CONNECT_S, _STALL_S = 30.0, 60.0  # a connection without a byte for this long is broken


class HTTPClient:
    """A `Client` of a download; redirects to addresses that are not safe are refused."""

    cors = False

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    @asynccontextmanager
    async def get(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[HTTPResponse]:
        import httpx

        asked = {**headers, "Accept-Encoding": "identity"}
        try:
            async with self._client.stream("GET", url, headers=asked) as response:
                _require_safe_end(response)
                yield HTTPResponse(response)
        except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as error:
            raise FetchError(f"{url} cannot be fetched: {error!r}; check the URL") from error
        except httpx.HTTPError as error:
            raise BrokenError(f"the connection broke ({error!r})") from error


class HTTPResponse:
    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        headers = {name.lower(): value for name, value in response.headers.items()}
        self.head = Head(response.status_code, response.reason_phrase, headers)

    def chunks(self) -> AsyncIterator[bytes]:
        return self._response.aiter_raw()


@asynccontextmanager
async def http_client() -> AsyncIterator[HTTPClient]:
    """Opens a client with the proxies and certificates of this machine.

    Raises ConfigError without httpx, FetchError for settings that cannot be used.
    """
    try:
        import httpx
    except ImportError:
        raise ConfigError("a download needs httpx; install webllm[native]") from None
    try:
        timeout = httpx.Timeout(_CONNECT_S, read=_STALL_S)
        client = httpx.AsyncClient(follow_redirects=True, timeout=timeout)
    except Exception as error:  # every unusable setting has its own exception
        raise FetchError(
            f"downloads cannot be set up: {error}; check the proxies (HTTPS_PROXY, ALL_PROXY) and "
            "certificates (SSL_CERT_FILE) of this machine"
        ) from error
    async with client:
        yield HTTPClient(client)


def _require_safe_end(response: httpx.Response) -> None:
    try:
        require_safe_url(str(response.url))
    except ConfigError as error:
        raise FetchError(f"the server redirects to an address that is not safe: {error}") from None
