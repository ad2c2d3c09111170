"""Measures how fast generated tokens are replayed, in tokens per second.

    python benchmarks/replay.py MODEL [--device gpu] [--tokens 64,256,512] [--save]

After a prompt of one token the same tokens are computed in three ways, each followed by one more
token. decode: one after another, as they were generated; replay: in decode's form, several rows of
one sequence in a step; prefill: as a part of the prompt, which only on the CPU has the same bits.
The three take turns; the table gives medians.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from array import array
from statistics import median

from results import Figures, add_save_option, save

from webllm import ChatOptions, MLCEngine, MLCEngineConfig
from webllm.api.chat_completion import FinishReason
from webllm.engine.loaded_model import LoadedModel
from webllm.engine.sequence import Sequence, SequenceParams
from webllm.ops.sampled import TokenLogprobs

PROMPT_ID = 1
WAYS = ("decode", "replay", "prefill")


class Tokens:
    """The output of one sequence."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def accept(self, token_id: int, logprobs: TokenLogprobs | None) -> FinishReason | None:
        self.token_ids.append(token_id)
        return None

    def end(self, reason: FinishReason) -> None:
        self.ended.set_result(None)

    def fail(self, error: BaseException) -> None:
        self.ended.set_exception(error)


def sequence_of(way: str, token_ids: list[int]) -> Sequence:
    """Returns a sequence that computes `token_ids` in one of WAYS, and samples one token more."""
    prompt_ids = [PROMPT_ID, *token_ids] if way == "prefill" else [PROMPT_ID]
    num_sampled = 1 if way == "prefill" else len(token_ids) + 1
    sequence = Sequence(array("I", prompt_ids), SequenceParams(num_sampled, frozenset()))
    if way == "replay":
        sequence.replay(token_ids)
    return sequence


async def run(model: LoadedModel, sequence: Sequence) -> tuple[list[int], float]:
    """Returns the sampled tokens, and the seconds until the last of them."""
    model.loop.reset_prefix_cache()
    output = Tokens()
    started = time.perf_counter()
    model.loop.add(sequence, output)
    await output.ended
    return output.token_ids, time.perf_counter() - started


async def measure(model: LoadedModel, num_tokens: int, repeats: int) -> dict[str, float]:
    """Returns the median tokens per second of each way; asserts that a replay goes on exactly."""
    token_ids, _ = await run(model, sequence_of("decode", [PROMPT_ID] * num_tokens))
    spent: dict[str, list[float]] = {way: [] for way in WAYS}
    for repeat in range(repeats + 1):
        for way in WAYS:
            found, seconds = await run(model, sequence_of(way, token_ids[:-1]))
            if way != "prefill":
                assert found[-1] == token_ids[-1], f"{way} went on differently"
            if repeat:  # the first compiles kernels
                spent[way].append(seconds)
    return {way: num_tokens / median(seconds) for way, seconds in spent.items()}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a model's id or GGUF file")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument("--tokens", default="64,256,512", help="numbers of replayed tokens")
    parser.add_argument("--repeats", type=int, default=5)
    add_save_option(parser)
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.tokens.split(",")]
    device = "webgpu" if arguments.device == "gpu" else "cpu"
    config = MLCEngineConfig(device=device, num_threads=arguments.threads, log_level="ERROR")
    figures: Figures = {}
    async with MLCEngine(config) as engine:
        options = ChatOptions(context_window_size=max(sizes) + 2)
        await engine.reload(arguments.model, options)
        model = engine._session(None).model
        print(f"{model.model_id} on {model.device_name}, tokens/s, medians of {arguments.repeats}")
        print(f"{'tokens':>6} {' '.join(f'{way:>15}' for way in WAYS)}")
        for size in sizes:
            rates = await measure(model, size, arguments.repeats)
            cells = [f"{rate:8.0f} ({rate / rates['decode']:.1f}x)" for rate in rates.values()]
            print(f"{size:6} {' '.join(cells)}")
            figures |= {f"{size} tokens, {way} (tokens/s)": rate for way, rate in rates.items()}
    if arguments.save:
        save("replay", arguments.save, figures)


if __name__ == "__main__":
    asyncio.run(main())
