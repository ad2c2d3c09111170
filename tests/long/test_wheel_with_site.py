"""A wheel with the site in it, built and installed as a user would."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

from long.figures import AddFigures

ROOT = Path(__file__).parents[2]


def test_pip_builds_a_wheel_with_the_site(tmp_path: Path, add_figures: AddFigures) -> None:
    checkout, out = tmp_path / "checkout", tmp_path / "out"
    _copy_checkout(checkout)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    environment = {**os.environ, "WEBLLM_BUILD_SITE": "1"}
    command = [*pip, "wheel", "--no-deps", "--wheel-dir", str(out), str(checkout)]
    subprocess.run(command, check=True, env=environment)
    (wheel,) = out.glob("webllm-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"webllm/site/index.html", "webllm/site/pyodide/pyodide.asm.wasm"} <= names
    assert any(name.startswith("webllm/site/wheels/webllm-") for name in names)
    assert {"webllm/site/license.txt", "webllm/site/third-party-notices.txt"} <= names
    licenses = {name.partition(".dist-info/licenses/")[2] for name in names}
    assert {"LICENSE", "THIRD_PARTY_NOTICES.md"} <= licenses

    venv.create(tmp_path / "env", with_pip=False)
    (python,) = (tmp_path / "env").glob("*/python" + (".exe" if os.name == "nt" else ""))
    target = ["--python", str(python), "install", "--quiet", f"{wheel}[cli,native]"]
    subprocess.run([*pip, *target], check=True)
    bundle = [str(python), "-m", "webllm", "bundle", str(tmp_path / "bundle"), "--no-model"]
    subprocess.run(bundle, check=True, cwd=tmp_path)
    assert (tmp_path / "bundle" / "index.html").is_file()
    add_figures("wheel with the site", {"size (MB)": wheel.stat().st_size / 1e6})


def _copy_checkout(folder: Path) -> None:
    """Copies the files that git tracks or would track, without build products."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, names.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
