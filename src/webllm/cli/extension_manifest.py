"""The manifest of a Chrome extension, with its permissions and its content security policy.

Chrome's reference: https://developer.chrome.com/docs/extensions/reference/manifest
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from webllm.errors import ConfigError


class Kind(StrEnum):
    """Where an extension's engine runs."""

    POPUP = "popup"
    BACKGROUND = "background"


@dataclass(frozen=True, slots=True)
class Access:
    """What an extension may reach, and who may reach it.

    model_hosts: sources of a content security policy. sites: match patterns. extensions: ids.
    """

    model_hosts: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()


# activeTab and scripting: the page as context, once the user asks for it. storage: settings.
PERMISSIONS = {
    Kind.POPUP: ("activeTab", "scripting", "storage"),
    Kind.BACKGROUND: ("activeTab", "offscreen", "scripting", "storage"),
}
ICON_SIZES = (16, 32, 48, 128)  # pixels
MESSAGES = ("appName", "appDescription")  # of _locales, which the manifest names

# The first with WebGPU in background workers. The other APIs are older: offscreen documents are
# from 109, runtime.getContexts is from 116.
_MIN_CHROME = "124"
_MAX_NUMBER = 65535  # in a version
_NUMBER = r"(?:0|[1-9][0-9]{0,4})"
_VERSION = re.compile(rf"{_NUMBER}(?:\.{_NUMBER}){{0,3}}")
_HOST = r"[a-z0-9-]+(?:\.[a-z0-9-]+)+"
_PORT = r"(?::[0-9]{1,5})?"
_SITE = re.compile(
    rf"(https://(?:\*\.)?{_HOST}{_PORT}|https?://(?:localhost|127\.0\.0\.1){_PORT})(/\S*)?"
)
_MODEL_HOST = re.compile(rf"(?:https://)?((?:\*\.)?{_HOST}{_PORT})/?")
_EXTENSION_ID = re.compile(r"[a-p]{32}")


def extension_manifest(kind: Kind, version: str, access: Access) -> dict[str, Any]:
    """Returns the contents of manifest.json; `version` is of the form of Python's versions.

    `externally_connectable` is always there: without it all other extensions could connect.
    """
    number = chrome_version(version)
    icons = {str(size): f"icon-{size}.png" for size in ICON_SIZES}
    connectable: dict[str, Any] = {"ids": list(access.extensions)}
    if access.sites:
        connectable["matches"] = list(access.sites)
    manifest: dict[str, Any] = {
        "manifest_version": 3,
        "name": "__MSG_appName__",
        "description": "__MSG_appDescription__",
        "version": number,
        **({} if number == version else {"version_name": version}),
        "minimum_chrome_version": _MIN_CHROME,
        "default_locale": "en",
        "icons": icons,
        "action": {
            "default_title": "__MSG_appName__",
            "default_popup": "popup.html",
            "default_icon": icons,
        },
        # Chrome leaves keys that it has itself, as Ctrl+Shift+L, unassigned. Command+Shift+Y is
        # the Mac's own, for a note.
        "commands": {
            "_execute_action": {
                "suggested_key": {"default": "Ctrl+Shift+Y", "mac": "MacCtrl+Shift+Y"}
            }
        },
        "permissions": list(PERMISSIONS[kind]),
        "externally_connectable": connectable,
        "cross_origin_embedder_policy": {"value": "require-corp"},
        "cross_origin_opener_policy": {"value": "same-origin"},
        "content_security_policy": {"extension_pages": content_security_policy(access.model_hosts)},
    }
    if kind is Kind.BACKGROUND:
        manifest["background"] = {"service_worker": "background.js", "type": "module"}
    return manifest


def content_security_policy(model_hosts: Sequence[str]) -> str:
    """Returns the policy of an extension's pages, which fetch only from these hosts."""
    policy = {
        "default-src": ["'none'"],
        "script-src": ["'self'", "'wasm-unsafe-eval'"],
        "worker-src": ["'self'"],
        "style-src": ["'self'"],
        "font-src": ["'self'"],
        "img-src": ["'self'"],
        "connect-src": ["'self'", *model_hosts],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
    return "; ".join(f"{name} {' '.join(sources)}" for name, sources in policy.items())


def chrome_version(version: str) -> str:
    """Returns the numbers that a version begins with, 1 to 4 of them; raises ConfigError."""
    match = re.match(r"[0-9]+(?:\.[0-9]+){0,3}", version)
    numbers = [int(number) for number in match[0].split(".")] if match else []
    if not any(numbers) or max(numbers) > _MAX_NUMBER:
        raise ConfigError(
            f"the version {version!r} begins with no version of Chrome's form, which is 1 to 4 "
            f"numbers up to {_MAX_NUMBER} such as 1.2.3, not all 0; give another with --version"
        )
    return ".".join(map(str, numbers))


def extension_version(text: str) -> str:
    """Returns a version that Chrome takes as it is; raises ConfigError."""
    numbers = list(map(int, text.split("."))) if _VERSION.fullmatch(text) else []
    if not any(numbers) or max(numbers) > _MAX_NUMBER:
        raise ConfigError(
            f"--version is {text!r}; give 1 to 4 numbers up to {_MAX_NUMBER} such as 1.2.3, not "
            "all 0 and without zeros before them"
        )
    return text


def site_pattern(text: str) -> str:
    """Returns the match pattern of sites that may connect; raises ConfigError.

    Without a path it is the whole site.
    """
    match = _SITE.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"--allow-site is {text!r}; give https://example.com, https://*.example.com, "
            "https://example.com/path/* or, on this machine, http://localhost:8000"
        )
    path = match[2] or "/"
    return match[1] + ("/*" if path == "/" else path)


def extension_id(text: str) -> str:
    """Returns the id of an extension that may connect; raises ConfigError."""
    if not _EXTENSION_ID.fullmatch(text):
        raise ConfigError(
            f"--allow-extension is {text!r}; give the extension's id, 32 letters from a to p, as "
            "on chrome://extensions"
        )
    return text


def model_host(text: str) -> str:
    """Returns the policy's source for a host that models come from; raises ConfigError."""
    match = _MODEL_HOST.fullmatch(text)
    if match is None:
        raise ConfigError(f"--model-host is {text!r}; give cdn.example.com or *.example.com")
    return f"https://{match[1]}"
