"""How browser.js divides long steps into submissions, under Node with a fake GPU."""

from __future__ import annotations

import subprocess

from browser.site_server import ROOT


def test_long_steps_are_submitted_in_slices() -> None:
    command = ["node", "--test", "tests/gpu_slices.test.mjs"]
    js = ROOT / "js"
    done = subprocess.run(command, cwd=js, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
