"""Builds a JupyterLite with webllm's wheel among its packages, for a Pyodide served beside it.

Its kernel takes IPython from Pyodide's release, and some packages from JupyterLite's own build.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from browser.python_sites import WHEELS, download

IPYTHON = (
    *("asttokens", "decorator", "executing", "ipython", "jedi", "matplotlib-inline", "parso"),
    *("prompt-toolkit", "pure-eval", "pygments", "six", "stack-data", "traitlets", "wcwidth"),
)
_SETTINGS = {
    "jupyter-lite-schema-version": 0,
    "jupyter-config-data": {
        "litePluginSettings": {
            "@jupyterlite/pyodide-kernel-extension:kernel": {
                "pyodideUrl": "/pyodide/pyodide.mjs",
            }
        }
    },
}


def build_jupyter_lite(folder: Path, contents: Path) -> Path:
    """Builds the folder to serve; its file browser shows the files of `contents`."""
    packages = folder / "pypi"
    packages.mkdir(parents=True)
    download(packages, "any", "comm")
    (wheel,) = WHEELS.glob("webllm-*.whl")
    (packages / wheel.name).symlink_to(wheel)
    (folder / "jupyter-lite.json").write_text(json.dumps(_SETTINGS))
    out = folder / "out"
    command = [sys.executable, "-m", "jupyter", "lite", "build", "--apps", "notebooks"]
    options = ["--lite-dir", str(folder), "--output-dir", str(out), "--contents", str(contents)]
    done = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out
