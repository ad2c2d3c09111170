"""A short run of the fuzzer of whole model files; `make fuzz` has longer ones, with sanitizers."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

FUZZER = Path(__file__).parents[1] / "fuzz" / "fuzz_model.py"


@pytest.mark.parametrize(("host", "count"), [("native", 150), ("wasm", 40)])
def test_mutated_model_files(host: str, count: int) -> None:
    """Each file is refused with one of our errors or generates its two tokens."""
    patient = ["--limit", "100"]  # other tests run beside it
    command = [sys.executable, str(FUZZER), "--host", host, "--count", str(count), *patient]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} files" in done.stdout
    outcomes = {name: int(n) for name, n in re.findall(r"^  (\w+): (\d+)$", done.stdout, re.M)}
    assert min(outcomes[name] for name in ("answered", "CheckpointError")) > count // 5
