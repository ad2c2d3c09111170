"""Long runs of the fuzzers in `tests/fuzz`, each with a new seed."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from long.figures import SEED, AddFigures, count

FOLDER = Path(__file__).parents[1] / "fuzz"
SANITIZED = Path(__file__).parents[2] / "build" / "sanitized"
NUM_FILES = count("FUZZ", 4000)  # whole models; the other fuzzers take a multiple of it

RUNS = {
    "parsed headers": ["fuzz_gguf.py", "--count", str(500 * NUM_FILES)],
    "tokenizers and templates": ["fuzz_text.py", "--count", str(25 * NUM_FILES)],
    "models": ["fuzz_model.py", "--count", str(NUM_FILES)],
    "models, WebAssembly": ["fuzz_model.py", "--host", "wasm", "--count", str(NUM_FILES // 4)],
    "models, sanitizers": [
        *("fuzz_model.py", "--sanitize", str(SANITIZED), "--count", str(NUM_FILES // 8)),
    ],
}


@pytest.mark.parametrize("name", RUNS)
def test_mutated_inputs(name: str, tmp_path: Path, add_figures: AddFigures) -> None:
    """Each input is refused with one of our errors or used."""
    script, *arguments = RUNS[name]
    command = [sys.executable, str(FOLDER / script), *arguments, "--seed", str(SEED)]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    seconds = time.monotonic() - started
    assert done.returncode == 0, f"{command}\n{done.stdout[-20_000:]}\n{done.stderr[-20_000:]}"
    outcomes = [int(number) for number in re.findall(r"^ +.*: (\d+)$", done.stdout, re.M)]
    outcomes += [int(number) for number in re.findall(r"^ *(\d+) fuzz_", done.stdout, re.M)]
    num_inputs = int(arguments[-1])
    assert sum(outcomes) == num_inputs, done.stdout
    add_figures(f"fuzz, {name}", {"inputs": num_inputs, "seconds": seconds})
