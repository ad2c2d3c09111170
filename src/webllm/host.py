"""The host that webllm runs on: CPython on an operating system, or Pyodide in a browser.

No other module looks at `sys.platform` to tell them apart.
"""

from __future__ import annotations

import sys
from typing import NamedTuple


class Host(NamedTuple):
    """The differences between hosts. It is a tuple because `import webllm` should stay fast.

    is_browser: Python runs in a browser and has its APIs. has_threads: Python can start threads.
    kv_cache_windows: sizes of the KV cache in context windows; the first that fits is taken.
    load_start: the share of a model's loading, from 0 to 1, that is done when Python begins.
    """

    is_browser: bool
    has_threads: bool
    kv_cache_windows: tuple[int, ...]
    load_start: float


NATIVE = Host(is_browser=False, has_threads=True, kv_cache_windows=(4, 2, 1), load_start=0.0)
# A tab should stay small. The start of Python is part of loading; js/src/starting.ts reports it.
BROWSER = Host(is_browser=True, has_threads=False, kv_cache_windows=(1,), load_start=0.1)

THIS_HOST = BROWSER if sys.platform == "emscripten" else NATIVE
