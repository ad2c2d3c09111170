"""How a browser reaches the hub: a mirror, and a token for repositories that are not public."""

from __future__ import annotations

from dataclasses import dataclass, field

from webllm.artifacts.source import HUB_URL, HTTPSource, HubSource, require_safe_url
from webllm.artifacts.transfer import RemoteFile


@dataclass(frozen=True, slots=True)
class HubAccess:
    """The address of the hub, and a token that is sent there and nowhere else.

    Raises ConfigError for an address that is not safe.
    """

    url: str = HUB_URL
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        require_safe_url(self.url)

    def locate(self, place: HTTPSource | HubSource) -> RemoteFile:
        """Returns the request for a file; an address of the hub becomes one of its mirror."""
        if isinstance(place, HubSource):
            return self.request(place.url_path)
        path = place.url.removeprefix(f"{HUB_URL}/")
        return self.request(path) if path != place.url else RemoteFile(place.url)

    def request(self, path: str) -> RemoteFile:
        """Returns the request for a path of the hub."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return RemoteFile(f"{self.url.rstrip('/')}/{path}", headers=headers)
