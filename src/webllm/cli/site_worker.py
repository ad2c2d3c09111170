"""The site's Service Worker, `sw.js`: its first line lists the files that it keeps, with hashes.

The build chooses the files, see js/build_sw.mjs. The hashes are those of the files that are served:
browsers notice an update by them, and the worker refuses a file that differs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from webllm.errors import ArtifactError

SERVICE_WORKER = "sw.js"
PAGE = "index.html"
_FIRST_LINE = re.compile(rb"self\.webllmFiles = (\{.*\});\n")
_TAG = re.compile(rb' *<meta name="service-worker" [^>]*>\n')


def service_worker(folder: Path) -> bytes:
    """Returns the worker of the site in a folder as it is now. Raises ArtifactError."""
    script = (folder / SERVICE_WORKER).read_bytes()
    there = [name for name in _listed(script) if (folder / name).is_file()]
    return with_hashes(script, {name: _sha256(folder / name) for name in there})


def with_hashes(script: bytes, hashes: Mapping[str, str]) -> bytes:
    """Returns the worker with these hashes, in hex by path. Leaves out files without one.

    Raises ArtifactError for a worker without a list.
    """
    files = {name: hashes[name] for name in _listed(script) if name in hashes}
    _, _, code = script.partition(b"\n")
    return b"self.webllmFiles = %b;\n%b" % (json.dumps(files).encode(), code)


def without_service_worker(page: bytes) -> bytes:
    """Returns the chat page so that it registers no worker."""
    return _TAG.sub(b"", page)


def _listed(script: bytes) -> list[str]:
    match = _FIRST_LINE.match(script)
    if match is None:
        raise ArtifactError(
            f"the site's {SERVICE_WORKER} begins with {script[:40]!r} and not with a list of its "
            "files; build the site anew with `make site`, or install webllm again"
        )
    return list(json.loads(match[1]))


def _sha256(file: Path) -> str:
    with file.open("rb") as reader:
        return hashlib.file_digest(reader, "sha256").hexdigest()
