"""Measures the host's work in a decode step in microseconds, by number of sequences.

    python benchmarks/step_overhead.py [--save]

schedule: choose the batch; pack: write its words for the device; accept: add the sampled tokens to
their sequences; text: detokenize, look for stop strings, queue the deltas. The device is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from array import array
from itertools import pairwise
from statistics import median

from results import Figures, add_save_option, save

from webllm.engine.block_manager import BlockManager
from webllm.engine.output import TextDelta, TextOutput, Timing
from webllm.engine.scheduler import Scheduler
from webllm.engine.sequence import Sequence, SequenceParams
from webllm.ops.program import BatchShape
from webllm.ops.sampling import LogitEdits, SamplingParams
from webllm.ops.step import StepLayout

CONTEXT, BLOCK_SIZE, STEPS = 4096, 16, 300
SAMPLING = SamplingParams(temperature=0.7, top_p=0.9, frequency_penalty=0.5)


class Letters:
    """The part of a tokenizer that a detokenizer uses."""

    special_ids: frozenset[int] = frozenset()
    add_space_prefix = False

    def token_bytes(self, token_id: int) -> bytes:
        return b" word%d" % token_id


def measure(num_sequences: int, *, penalties: bool) -> dict[str, float]:
    """Returns the medians over the steps, in microseconds."""
    scheduler = Scheduler(BlockManager(64 * CONTEXT // BLOCK_SIZE, BLOCK_SIZE))
    limits = scheduler.limits
    shape = BatchShape(
        limits.max_tokens, limits.max_sequences, limits.max_sequences, CONTEXT // BLOCK_SIZE
    )
    layout = StepLayout(shape, BLOCK_SIZE, scheduler.blocks.num_blocks, num_token_ids=1500)
    outputs: dict[Sequence, TextOutput] = {}
    deltas: asyncio.Queue[TextDelta | BaseException] = asyncio.Queue()
    for i in range(num_sequences):
        params = SequenceParams(
            STEPS + 100, frozenset({2}), SAMPLING if penalties else SamplingParams()
        )
        sequence = Sequence(array("I", range(i, i + 200)), params, LogitEdits(counts=penalties))
        outputs[sequence] = TextOutput(Letters(), ("\n\n",), i, deltas, Timing())
        scheduler.add(sequence)
    times: dict[str, list[float]] = {"schedule": [], "pack": [], "accept": [], "text": []}
    for step in range(STEPS):
        marks = [time.perf_counter()]
        batch = scheduler.next_batch()
        assert batch is not None
        marks.append(time.perf_counter())
        layout.pack(batch.step)
        marks.append(time.perf_counter())
        for i, sequence in enumerate(batch.sequences):
            sequence.accept(1000 + (step * 7 + i) % 500)
        marks.append(time.perf_counter())
        for i, sequence in enumerate(batch.sequences):
            outputs[sequence].accept(1000 + (step * 7 + i) % 500, None)
        marks.append(time.perf_counter())
        if len(batch.sequences) == num_sequences:
            for name, (begin, end) in zip(times, pairwise(marks), strict=True):
                times[name].append(1e6 * (end - begin))
    return {name: median(spent) for name, spent in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_save_option(parser)
    arguments = parser.parse_args()
    figures: Figures = {}
    print(
        f"{'sequences':>9} {'penalties':>9} {'schedule':>9} {'pack':>7} {'accept':>7} {'text':>7}"
    )
    for num_sequences in (1, 4, 16, 64):
        for penalties in (False, True):
            spent = measure(num_sequences, penalties=penalties)
            print(
                f"{num_sequences:9} {'yes' if penalties else 'no':>9} {spent['schedule']:9.1f} "
                f"{spent['pack']:7.1f} {spent['accept']:7.1f} {spent['text']:7.1f}"
            )
            case = f"{num_sequences} sequences{', penalties' if penalties else ''}"
            figures |= {
                f"{case}, {part} (us)": microseconds for part, microseconds in spent.items()
            }
    if arguments.save:
        save("step_overhead", arguments.save, figures)


if __name__ == "__main__":
    main()
