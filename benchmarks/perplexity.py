"""Compares perplexities with llama.cpp's, of every mix that llama-quantize makes of a model.

    python benchmarks/perplexity.py MODEL.gguf --llama-cpp BUILD/bin [--mixes Q4_K_M,Q2_K] [--save]

The text is divided into chunks of `--context` tokens. The perplexity is that of the second half of
each, as `llama-perplexity` computes it. Both read the same file; "as it is" is MODEL.gguf itself.
The ratio should be within 1 %. If MODEL.gguf is quantized already, its mixes are worse than its
original's, for both sides alike.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import pydoc_data.topics
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from results import Figures, add_save_option, save

from webllm.artifacts.checkpoint import Checkpoint, GGUFTokenizer
from webllm.artifacts.local_files import open_local
from webllm.backends.auto import open_backend
from webllm.backends.protocol import Executable
from webllm.models import registry
from webllm.ops.program import BatchShape
from webllm.ops.step import Step, StepSequence
from webllm.text.gguf_tokenizer import tokenizer_from_gguf

MIXES = (
    "Q2_K,Q3_K_S,Q3_K_M,Q3_K_L,Q4_0,Q4_1,Q4_K_S,Q4_K_M,Q5_0,Q5_1,Q5_K_S,Q5_K_M,Q6_K,Q8_0,"
    "IQ4_NL,IQ4_XS,F16,BF16"
)
AS_IT_IS = "as it is"
BLOCK_SIZE = 16
BAR = 0.01


@dataclass(frozen=True)
class Row:
    """The perplexities of one file."""

    mix: str
    ours: float
    llama_cpp: float
    megabytes: float

    @property
    def ratio(self) -> float:
        return self.ours / self.llama_cpp


def chunks_of(checkpoint: Checkpoint, text: str, context: int, count: int) -> list[list[int]]:
    """Returns the tokens of each chunk; the first is BOS if the tokenizer adds one to a text."""
    assert isinstance(checkpoint.tokenizer, GGUFTokenizer)
    tokenizer = tokenizer_from_gguf(checkpoint.tokenizer.metadata)
    ids = tokenizer.encode(text)
    chunks = [ids[i : i + context] for i in range(0, len(ids) - context + 1, context)][:count]
    if tokenizer.bos_id is not None and ids[0] == tokenizer.bos_id:
        chunks = [[tokenizer.bos_id, *chunk[1:]] for chunk in chunks]
    return chunks


async def our_perplexity(file: Path, device: str, text: str, context: int, count: int) -> float:
    blocks = -(-context // BLOCK_SIZE)
    limits = BatchShape(max_tokens=context, max_seqs=1, max_outputs=context // 2, max_blocks=blocks)
    backend = await open_backend(device)
    try:
        with open_local(file) as checkpoint:
            program = registry.record(checkpoint, blocks * BLOCK_SIZE)
            await backend.load(program, checkpoint, blocks, limits, lambda *_: None)
            chunks = chunks_of(checkpoint, text, context, count)
        if len(chunks) < count:
            raise SystemExit(f"the text has {len(chunks)} chunks of {context} tokens, not {count}")
        executable = backend.compile(program, limits)
        losses = [await loss(executable, chunk, blocks) for chunk in chunks]
    finally:
        backend.close()
    return math.exp(float(np.concatenate(losses).mean()))


async def loss(executable: Executable, ids: list[int], num_blocks: int) -> np.ndarray:
    """Returns the negative log-probs of the tokens in the second half, but for its first one."""
    first = len(ids) // 2
    outputs = range(first, len(ids) - 1)
    sequence = StepSequence(ids[:-1], len(ids) - 1, list(range(num_blocks)), outputs)
    executable.submit(Step((sequence,)))
    await executable.sampled()
    logits = np.frombuffer(await executable.logits(), np.float32).reshape(len(outputs), -1)
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    wanted = logits[np.arange(len(outputs)), ids[first + 1 :]]
    losses: np.ndarray = np.log(np.exp(logits).sum(axis=1)) - wanted
    return losses


def their_perplexity(binaries: Path, file: Path, text: Path, context: int, count: int) -> float:
    command = [binaries / "llama-perplexity", "-m", file, "-f", text, "--no-escape"]
    options = ["-c", context, "-b", context, "--chunks", count, "-t", 2, "-ngl", 0]
    output = run([*command, *options])
    found = re.search(r"Final estimate: PPL = ([0-9.]+)", output)
    if found is None:
        raise SystemExit(f"llama-perplexity printed no estimate:\n{output[-2000:]}")
    return float(found[1])


def run(command: list[object]) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        raise SystemExit(f"{command[0]} exited {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout + done.stderr


def files_of(model: Path, mixes: list[str], binaries: Path, folder: Path) -> Iterator[Path]:
    """Yields a file for each mix, which is gone when the next one is asked for."""
    for mix in mixes:
        if mix == AS_IT_IS:
            yield model
            continue
        file = folder / f"{mix}.gguf"
        run([binaries / "llama-quantize", "--allow-requantize", model, file, mix])
        yield file
        file.unlink()


def rows_of(arguments: argparse.Namespace) -> Iterator[Row]:
    mixes = [AS_IT_IS, *arguments.mixes.split(",")]
    size = arguments.context, arguments.chunks
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = arguments.text or folder / "text.txt"
        if arguments.text is None:
            prose = "\n\n".join(pydoc_data.topics.topics.values())
            text.write_text(prose[: 8 * arguments.context * arguments.chunks])
        files = files_of(arguments.model, mixes, arguments.llama_cpp, folder)
        for mix, file in zip(mixes, files, strict=True):
            content = text.read_text().removesuffix("\n")  # llama.cpp leaves it out, too
            ours = asyncio.run(our_perplexity(file, arguments.device, content, *size))
            theirs = their_perplexity(arguments.llama_cpp, file, text, *size)
            yield Row(mix, ours, theirs, file.stat().st_size / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama-cpp", type=Path, required=True, help="folder of its programs")
    parser.add_argument("--mixes", default=MIXES)
    parser.add_argument("--text", type=Path, help="default: Python's language reference")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    add_save_option(parser)
    arguments = parser.parse_args()
    print(f"{arguments.model.name}, {arguments.chunks} chunks of {arguments.context} tokens\n")
    print("| mix | MB | ours | llama.cpp | ratio |\n|---|---|---|---|---|")
    figures: Figures = {}
    worst = 0.0
    for row in rows_of(arguments):
        far = abs(row.ratio - 1)
        worst = max(worst, far)
        mark = " (!)" if far > BAR else ""
        cells = f"{row.megabytes:.0f} | {row.ours:.4f} | {row.llama_cpp:.4f}"
        print(f"| {row.mix} | {cells} | {row.ratio:.4f}{mark} |", flush=True)
        figures[f"{arguments.model.stem}, {row.mix}, ratio of perplexities"] = row.ratio
    print(f"\nfarthest from 1: {worst:.2%}")
    if arguments.save:
        save("perplexity", arguments.save, figures)


if __name__ == "__main__":
    main()
