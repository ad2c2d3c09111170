"""A browser driven by the commands of W3C WebDriver, over any transport."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Any, NamedTuple

from browser.chromium import TIMEOUT_S

CAPABILITIES = {"timeouts": {"script": 1000 * TIMEOUT_S, "pageLoad": 1000 * TIMEOUT_S}}
CALL = """
const call = async () => (%s)(...arguments);
return call().then((value) => ({ value }), (error) => ({ error: String(error) }));
"""


class Names(NamedTuple):
    in_firefox: str
    path: str  # of a POST request, below the session


class Command(Enum):
    NAVIGATE = Names("WebDriver:Navigate", "/url")
    REFRESH = Names("WebDriver:Refresh", "/refresh")
    EXECUTE = Names("WebDriver:ExecuteScript", "/execute/sync")


IS_LOADED = """(url) => document.readyState === "complete" && !globalThis.isOld &&
    (!url || location.href === url)"""
POLL_S = 0.05


class ScriptError(Exception):
    """A function in the page threw an error."""


class LostPageError(Exception):
    """The page was replaced while a function ran in it."""


class Browser:
    """One window, in a browser with a new profile."""

    def __init__(self, name: str, value: Callable[[Command, dict[str, Any]], Any]) -> None:
        """`value` sends a command with its parameters, and returns the value of the reply."""
        self.name = name
        self._value = value

    def open(self, url: str) -> None:
        """Opens a page; returns when it is loaded."""
        self._value(Command.NAVIGATE, {"url": url})
        self._wait_until_loaded(url)

    def reload(self) -> None:
        """Reloads the page; returns when it is loaded."""
        self.evaluate("() => { globalThis.isOld = true; }")
        self._value(Command.REFRESH, {})
        self._wait_until_loaded(None)

    def _wait_until_loaded(self, url: str | None) -> None:
        """Waits for the new page; WebKitGTK may report the end of an earlier page's load."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            with suppress(LostPageError):
                if self.evaluate(IS_LOADED, url):
                    return
            time.sleep(POLL_S)
        raise AssertionError(f"{url or 'the page'} was not loaded in {TIMEOUT_S} s")

    def evaluate(self, function: str, *arguments: Any) -> Any:
        """Calls a JavaScript function in the page and awaits its value. Raises ScriptError."""
        script = {"script": CALL % function, "args": arguments}
        answer = self._value(Command.EXECUTE, script)
        if "error" in answer:
            raise ScriptError(answer["error"])
        return answer.get("value")
