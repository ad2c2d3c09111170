"""Collects the wheels that webllm needs in a browser: python wheels.py OUT

webllm is built from this checkout as a pure wheel with WebAssembly kernels in it. The others come
from PyPI through pip, for the Python of the Pyodide in package.json.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLATFORM, PYTHON = "pyemscripten_2026_0_wasm32", "3.14"
MSGSPEC, JINJA2, MARKUPSAFE = "msgspec==0.22.0", "jinja2==3.1.6", "markupsafe==3.0.4"
# Where pip takes packages from, and how it gets there.
PIP_SETTINGS = {
    "PIP_CACHE_DIR",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_CONFIG_FILE",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_INDEX_URL",
    "PIP_KEYRING_PROVIDER",
    "PIP_NO_CACHE_DIR",
    "PIP_NO_INDEX",
    "PIP_NO_INPUT",
    "PIP_PROXY",
    "PIP_RETRIES",
    "PIP_TIMEOUT",
    "PIP_TRUSTED_HOST",
}


def main(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    _pip("wheel", "--no-deps", "--wheel-dir", str(out), str(ROOT))
    download(out, PLATFORM, MSGSPEC, JINJA2)
    _pure_markupsafe(out)
    names = sorted(path.name for path in out.glob("*.whl"))
    (out / "index.json").write_text(json.dumps(names, indent=2) + "\n")


def download(out: Path, platform: str, *requirements: str) -> None:
    tags = ["--python-version", PYTHON, "--implementation", "cp", "--platform", platform]
    options = ["--no-deps", "--only-binary=:all:", *tags, "--dest", str(out)]
    _pip("download", *options, *requirements)


def _pure_markupsafe(out: Path) -> None:
    """Its wheel without the compiled half, for which it has Python code as well: there is no wheel
    for WebAssembly on PyPI.
    """
    scratch = out / "scratch"
    download(scratch, "manylinux_2_17_x86_64", MARKUPSAFE)
    (wheel,) = scratch.glob("*.whl")
    pure = out / f"{'-'.join(wheel.name.split('-')[:2])}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as given, zipfile.ZipFile(pure, "w", zipfile.ZIP_DEFLATED) as kept:
        for name in given.namelist():
            if not name.endswith((".so", ".c", ".pyi")):
                kept.writestr(name, given.read(name))
    shutil.rmtree(scratch)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    environment = {name: value for name, value in os.environ.items() if _is_for_all(name)}
    subprocess.run(command, check=True, env={**environment, "WEBLLM_BUILD_TARGET": "wasm32"})


def _is_for_all(name: str) -> bool:
    """Whether a variable is not one of a build around this one: of its pip (a tracker of what is
    built already, folders, platforms), or of what it builds.
    """
    if name.startswith("PIP_"):
        return name in PIP_SETTINGS
    return not name.startswith("WEBLLM_BUILD_")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
