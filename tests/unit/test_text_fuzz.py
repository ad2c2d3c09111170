"""A short run of the fuzzer of tokenizers and chat templates."""

import importlib.util
from pathlib import Path


def test_900_mutated_inputs() -> None:
    path = Path(__file__).parents[1] / "fuzz" / "fuzz_text.py"
    spec = importlib.util.spec_from_file_location("fuzz_text", path)
    assert spec is not None
    assert spec.loader is not None
    fuzzer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzzer)
    outcomes = fuzzer.fuzz(900)
    for kind in ("fuzz_json", "fuzz_gguf", "fuzz_template"):
        assert outcomes[f"{kind} ok"] > 20, outcomes
        assert sum(n for outcome, n in outcomes.items() if outcome.startswith(kind)) == 300
