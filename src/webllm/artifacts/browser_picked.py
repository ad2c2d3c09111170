"""Model files that the user picked from disk: read where they lie, never copied, never stored.

The page that has the File keeps it, and answers on a BroadcastChannel for as long as it is open;
so the source "picked:<id>/<name>" works in every worker of the site, whatever port leads to it.

    page:     answers {want: id} with {id, file}
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import js
from pyodide.ffi import create_proxy, to_js

from webllm.errors import ConfigError, ModelNotFoundError

_CHANNEL = "webllm-picked"
_SCHEME = "picked:"
_PATIENCE_S = 10.0  # for a page that is busy


def is_picked(source: str) -> bool:
    return source.startswith(_SCHEME)


async def offer_file(file: Any) -> str:
    """A source for a JavaScript File or FileSystemFileHandle, good while this page is open.

    Raises ConfigError for anything else.
    """
    if hasattr(file, "getFile"):
        file = await file.getFile()
    if not isinstance(getattr(file, "name", None), str) or not hasattr(file, "arrayBuffer"):
        raise ConfigError(f"{file!r} is neither a File nor a FileSystemFileHandle")
    file_id = str(uuid.uuid4())
    channel = js.BroadcastChannel.new(_CHANNEL)

    def on_message(event: Any) -> None:
        if getattr(event.data, "want", None) == file_id:
            channel.postMessage(_message(id=file_id, file=file))

    channel.onmessage = create_proxy(on_message)  # both live as long as the page
    return f"{_SCHEME}{file_id}/{file.name}"


async def picked_file(source: str) -> Any:
    """The File. Raises ModelNotFoundError if the page that offered it is gone."""
    file_id = source.removeprefix(_SCHEME).partition("/")[0]
    answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def on_message(event: Any) -> None:
        if getattr(event.data, "id", None) == file_id and not answered.done():
            answered.set_result(event.data.file)

    channel, listener = js.BroadcastChannel.new(_CHANNEL), create_proxy(on_message)
    channel.onmessage = listener
    try:
        channel.postMessage(_message(want=file_id))
        return await asyncio.wait_for(answered, _PATIENCE_S)
    except TimeoutError:
        raise ModelNotFoundError(
            f"{source} is no longer open in any page of this site; pick the file again"
        ) from None
    finally:
        channel.onmessage = None
        channel.close()
        listener.destroy()


def _message(**fields: Any) -> Any:
    return to_js(fields, dict_converter=js.Object.fromEntries)
