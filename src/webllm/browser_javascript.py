"""JavaScript under Pyodide: the files of this package as modules, and awaits of promises."""

from __future__ import annotations

import asyncio
import importlib
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from js import URL, Blob, Object
from pyodide.code import run_js
from pyodide.ffi import JsException, register_js_module, to_js

from webllm import errors
from webllm.errors import WebLLMError

_IMPORT = re.compile(r'(?<=from )"\./([\w.]+)"')


async def browser_module(name: str, package: str, file: str) -> Any:
    """Returns the JavaScript module `file` of a Python package.

    boot.js registers it with Pyodide as `name`. Elsewhere it is imported from the wheel, with the
    files beside it that it imports. Raises ImportError if the page's policy forbids that.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        module = await _imported(name, files(package), file)
        register_js_module(name, module)
        return module


async def _imported(name: str, folder: Traversable, file: str) -> Any:
    """Python cannot call `import`, so this evaluates a function that does."""
    urls: dict[str, str] = {}
    try:
        return await run_js("(url) => import(url)")(_url(folder, file, urls))
    except JsException as error:
        raise ImportError(
            f"the page's Content-Security-Policy keeps webllm's JavaScript out: {error}; before a "
            f"model is loaded, call pyodide.registerJsModule('{name}', await import(…)) with "
            f"{file} and the other files of its folder in the wheel, served from the site"
        ) from error
    finally:
        for url in urls.values():
            URL.revokeObjectURL(url)


def _url(folder: Traversable, file: str, urls: dict[str, str]) -> str:
    """Returns a URL for a file, in which the files that it imports have URLs of this kind too."""
    if file not in urls:
        source = (folder / file).read_text()
        source = _IMPORT.sub(lambda found: f'"{_url(folder, found[1], urls)}"', source)
        kind = to_js({"type": "text/javascript"}, dict_converter=Object.fromEntries)
        urls[file] = URL.createObjectURL(Blob.new(to_js([source]), kind))
    return urls[file]


def typed_error(error: JsException, otherwise: type[WebLLMError]) -> WebLLMError:
    """Returns our error for one of our JavaScript's, which has the name of its class."""
    kind = getattr(errors, str(error.name), None)
    if isinstance(kind, type) and issubclass(kind, WebLLMError):
        return kind(str(error.message))
    return otherwise(str(error))


def handled(promise: Any) -> asyncio.Future[Any]:
    """Returns a promise's future, whose error is not reported if nobody awaits it."""
    future: asyncio.Future[Any] = asyncio.ensure_future(promise)
    future.add_done_callback(lambda _: future.cancelled() or future.exception())
    return future


async def settled(promise: Any) -> Any:
    """Returns a promise's value, or raises its error.

    Pyodide fails if a promise settles after its await was cancelled, and `asyncio.shield` would
    report an error of it to the console.
    """
    future = handled(promise)
    await asyncio.wait([future])
    return future.result()
