"""The built site (chat page, worker, Python for the browser), from the wheel or a checkout.

Knows nothing of models; see `site_models`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from webllm.errors import ArtifactError

CATALOGUE = "models.json"
MANIFEST = "manifest.json"  # of an extension
MODELS = "models"  # the folder of model files
NEEDED = (
    "index.html",
    "tab.js",
    "worker.js",
    "packages.zip",
    "extensions.zip",
    "python.snapshot",
    "sw.js",
)

# What the build makes for `webllm extension` alone.
_FOR_EXTENSIONS = (
    *("_locales/*", "background.js", "consent.*", "extension_service_worker.js"),
    *("icon-*.png", "offscreen*", "popup.*"),
)

_PACKAGE = Path(__file__).parents[1]


def site_folder() -> Path:
    """Raises ArtifactError if this installation has no site."""
    places = [_PACKAGE / "site"]
    checkout = _PACKAGE.parents[1]
    if (checkout / "js" / "build.mjs").is_file():
        places.append(checkout / "js" / "dist")
    for place in places:
        if not all((place / name).is_file() for name in NEEDED):
            continue
        if not set(NEEDED) <= set(site_files(place)):
            raise ArtifactError(
                f"{place} contains links to files elsewhere, which are not served; install "
                "webllm with copies (uv: --link-mode copy)"
            )
        return place
    if len(places) > 1:
        raise ArtifactError(
            f"{places[-1]} contains no built site; run `make site`, which takes Node.js 20 or newer"
        )
    raise ArtifactError(
        f"this installation of webllm was built without the chat page ({places[0]} is missing); "
        "install a wheel that contains it, or build one in a checkout, with Node.js 20 or newer: "
        "WEBLLM_BUILD_SITE=1 pip install ."
    )


def page_files(folder: Path) -> Iterator[str]:
    """Yields the files of a site, as `site_files` does, without those for extensions alone."""
    for name in site_files(folder):
        if not any(fnmatchcase(name, pattern) for pattern in _FOR_EXTENSIONS):
            yield name


def site_files(folder: Path) -> Iterator[str]:
    """Yields every file of a site as a path relative to its folder, with slashes.

    Leaves out the catalogue, hidden files, and links that lead out of the folder.
    """
    home = folder.resolve()
    found = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    for path in sorted(found):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if hidden or relative.as_posix() == CATALOGUE or not path.is_file():
            continue
        if path.resolve().is_relative_to(home):
            yield relative.as_posix()
