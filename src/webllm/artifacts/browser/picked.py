"""Model files that the user picked from disk, read in place: never copied, never stored.

The page keeps the File and hands it out on a BroadcastChannel for as long as the page is open. So
the source "picked:<id>/<name>" works in every worker of the site.

    page: answers {want: id} with {id, file}
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
_TIMEOUT_S = 10.0  # a busy page may take seconds to answer


def is_picked(source: str) -> bool:
    return source.startswith(_SCHEME)


async def offer_file(file: Any) -> str:
    """Returns a source for a JavaScript File or FileSystemFileHandle, valid while the page is open.

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
    """Returns the File of a source; raises ModelNotFoundError if its page was closed."""
    file_id = source.removeprefix(_SCHEME).partition("/")[0]
    answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def on_message(event: Any) -> None:
        if getattr(event.data, "id", None) == file_id and not answered.done():
            answered.set_result(event.data.file)

    channel, listener = js.BroadcastChannel.new(_CHANNEL), create_proxy(on_message)
    channel.onmessage = listener
    try:
        channel.postMessage(_message(want=file_id))
        return await asyncio.wait_for(answered, _TIMEOUT_S)
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
