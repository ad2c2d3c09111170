"""The hub's description of a repository, asked for with the browser's `fetch`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from webllm.artifacts.browser.fetch import RETRY, FetchClient
from webllm.artifacts.files import FileSpec
from webllm.artifacts.hub_access import HubAccess
from webllm.artifacts.remote_folder import Listing, load_document
from webllm.artifacts.source import HubSource
from webllm.errors import FetchError


class _File(msgspec.Struct):
    rfilename: str
    size: int | None = None
    lfs: Mapping[str, Any] | None = None


class _Repository(msgspec.Struct):
    sha: str
    siblings: list[_File]


async def list_files(source: HubSource, hub: HubAccess) -> Listing:
    """Returns the files of the source's repository.

    Raises ModelNotFoundError if there is no such repository, or the mirror lists none; FetchError.
    """
    revision = quote(source.revision or "main", safe="")
    file = hub.request(f"api/models/{source.repository}/revision/{revision}?blobs=true")
    data = await load_document(file, FetchClient(), RETRY)
    try:
        found = msgspec.json.decode(data, type=_Repository)
    except msgspec.MsgspecError as error:
        raise FetchError(
            f"{file.url} is not the hub's description of a repository: {error}"
        ) from error
    files = {
        each.rfilename: FileSpec(each.rfilename, each.size, _sha256(each))
        for each in found.siblings
    }
    return Listing(found.sha, files)


def _sha256(file: _File) -> str | None:
    sha256 = file.lfs.get("sha256") if file.lfs else None
    return sha256 if isinstance(sha256, str) else None
