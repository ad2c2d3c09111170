"""Makes the golden logits of the made-up models, by transformers in float32 on the CPU.

Run by hand, in the environment of `make_logits.py`:

    PYTHONPATH=tests:src python tests/golden/make_made_up_logits.py

Each model is written as a safetensors folder, which transformers reads. A golden must be awake: for
each feature of the architecture, a copy without it has to have other logits, by at least `AWAKE`.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from make_logits import dump, rounded, versions
from transformers import AutoModelForCausalLM

from model_files.made_up import CONFIGS, made_up, token_ids
from model_files.model import Model, Plain
from model_files.safetensors_writer import write_safetensors

NUM_PROMPT, NUM_FORCED, NUM_TOP = 8, 56, 12
SEQUENCES = ("one", "two", "three")
AWAKE = 0.1  # nats; 10 times `compare.TINY_CPU`, 1000 times `compare.TINY_GPU`
NOISE = 5e-5  # of one pass against one token after the other


@dataclass(frozen=True)
class Change:
    """A feature, and the model without it."""

    feature: str
    without: Model


def logits_of(model: Model, *, one_by_one: bool = False) -> np.ndarray:
    """Returns the logits before each forced token, float64 [sequences, forced, vocab]."""
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        write_safetensors(model, Path(folder), "F32")
        loaded, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        assert not any(info.values()), info
        forward = stepwise if one_by_one else at_once
        return np.stack([forward(loaded.eval(), name) for name in SEQUENCES])


def at_once(model: Any, sequence: str) -> np.ndarray:
    ids = torch.tensor([sequence_ids(sequence)[:-1]])
    return model(ids, use_cache=False).logits[0, NUM_PROMPT - 1 :].double().numpy()


def stepwise(model: Any, sequence: str) -> np.ndarray:
    kv_cache, steps = None, []
    for token_id in sequence_ids(sequence)[:-1]:
        output = model(torch.tensor([[token_id]]), past_key_values=kv_cache, use_cache=True)
        kv_cache = output.past_key_values
        steps.append(output.logits[0, -1].double().numpy())
    return np.stack(steps[NUM_PROMPT - 1 :])


def sequence_ids(name: str) -> list[int]:
    return token_ids(name, NUM_PROMPT + NUM_FORCED)


def changes(model: Model) -> Iterator[Change]:
    """Yields the model without each of its features."""
    config = model.config

    def setting(**values: object) -> Change:
        return Change(", ".join(values), replace(model, config=config | values))

    yield setting(rope_theta=2 * config["rope_theta"])
    yield setting(rms_norm_eps=1e-6)
    if config["rope_scaling"]:
        yield setting(rope_scaling=None)
    if model.model_type == "gemma3_text":
        yield setting(rope_local_base_freq=config["rope_theta"])
        yield setting(sliding_window=1000)
        yield setting(layer_types=["full_attention"] * config["num_hidden_layers"])
        yield setting(query_pre_attn_scalar=2 * config["query_pre_attn_scalar"])
        yield setting(hidden_activation="silu")
    else:
        yield setting(hidden_act="gelu_pytorch_tanh")
    if not config["tie_word_embeddings"]:
        tied = dict(model.tensors, **{"lm_head.weight": model.tensors["model.embed_tokens.weight"]})
        yield Change("lm_head", replace(model, tensors=tied))
    no_op = float(not model.norms_lack_one)
    vectors = {name.split(".")[-2] + "." + name.split(".")[-1] for name in model.tensors}
    for ending in sorted(v for v in vectors if v.endswith((".bias", "norm.weight"))):
        value = 0.0 if ending.endswith("bias") else no_op
        yield Change(ending, filled(model, f".{ending}", value))


def filled(model: Model, ending: str, value: float) -> Model:
    def fill(load: Callable[[], Any]) -> Callable[[], Plain]:
        return lambda: Plain(np.full_like(load().dequantized(), value))

    return replace(
        model,
        tensors={n: fill(t) if n.endswith(ending) else t for n, t in model.tensors.items()},
    )


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).log_softmax(-1).numpy()


def golden(name: str) -> str:
    model = made_up(name)
    logprobs = log_softmax(logits_of(model))
    noise = float(np.abs(log_softmax(logits_of(model, one_by_one=True)) - logprobs).max())
    assert noise < NOISE, f"{name}: the two ways differ by {noise}"
    awake = {
        change.feature: round(
            float(np.abs(log_softmax(logits_of(change.without)) - logprobs).max()), 3
        )
        for change in changes(model)
    }
    asleep = {f: moved for f, moved in awake.items() if moved < AWAKE}
    assert not asleep, f"{name}: the logits hardly feel {asleep}"
    head = {
        "model": name,
        "versions": versions(),
        "how": "float32 on CPU, eager attention; forced ids, log-probs (natural) from one pass; "
        "margin = log-prob of the first less that of the second; float32_noise = the largest "
        "difference to one token after the other; awake = the change of a log-prob without a "
        "feature of the architecture",
        "command": "PYTHONPATH=tests:src python tests/golden/make_made_up_logits.py",
        "float32_noise": round(noise, 7),
        "awake": awake,
    }
    cases = [case(s, lp) for s, lp in zip(SEQUENCES, logprobs, strict=True)]
    print(name, f"noise {noise:.2g}", json.dumps(awake), flush=True)
    return dump(head, cases)


def case(sequence: str, logprobs: np.ndarray) -> dict[str, Any]:
    ids = sequence_ids(sequence)
    forced = ids[NUM_PROMPT:]
    top = torch.from_numpy(logprobs).topk(NUM_TOP)
    return {
        "name": sequence,
        "prompt_ids": ids[:NUM_PROMPT],
        "token_ids": forced,
        "logprobs": rounded(torch.from_numpy(logprobs[range(NUM_FORCED), forced])),
        "margins": rounded(top.values[:, 0] - top.values[:, 1]),
        "top_ids": top.indices.tolist(),
        "top_logprobs": [rounded(row) for row in top.values],
    }


def main() -> None:
    for name in CONFIGS:
        Path(__file__).with_name(f"{name}.json").write_text(golden(name), encoding="utf-8")


if __name__ == "__main__":
    main()
