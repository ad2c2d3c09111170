"""Counts our functions that a streamed chat request calls, on a fake device.

    python benchmarks/request_calls.py [--names] [--save]

It reports the number of distinct functions until the first token, and the calls for each later one.
Coroutines and generators are counted apart, because an `await` resumes them without a call. The
calls of the fake device, its tokenizer and its chat format are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType

ROOT = Path(__file__).parents[1]
PACKAGE = str(ROOT / "src" / "webllm")
sys.path[:0] = [str(ROOT / "tests" / "unit"), str(ROOT / "tests")]

from fake_model import make_engine  # noqa: E402
from results import Figures, add_save_option, save  # noqa: E402

NUM_TOKENS = 64
_RESUMED = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_GENERATOR


class Calls:
    """The calls of one phase, by function; comprehensions belong to the function around them."""

    def __init__(self) -> None:
        self.functions: Counter[CodeType] = Counter()
        self.coroutines: Counter[CodeType] = Counter()

    @contextmanager
    def counted(self) -> Iterator[None]:
        sys.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        is_ours = event == "call" and code.co_filename.startswith(PACKAGE)
        if is_ours and code.co_name[0] != "<" and not _is_of_device(frame):
            is_resumed = code.co_flags & _RESUMED
            (self.coroutines if is_resumed else self.functions)[code] += 1

    def figures(self, per: int = 1) -> Figures:
        return {
            "calls": self.functions.total() / per,
            "functions": len(self.functions),
            "files": len({code.co_filename for code in self.functions}),
            "coroutines": len(self.coroutines),
        }

    def report(self, names: bool, per: int = 1) -> str:
        text = (
            "{calls:.1f} calls of {functions} functions in {files} files, {coroutines} coroutines"
        )
        text = text.format(**self.figures(per))
        if names:
            found = self.functions | self.coroutines
            lines = [f"{n / per:8.2f}  {_name(code)}" for code, n in found.most_common()]
            text = "\n".join([text, *lines])
        return text


def _is_of_device(frame: FrameType | None) -> bool:
    """Returns whether a caller belongs to the fake device; a real one would do that work."""
    while frame is not None:
        if Path(frame.f_code.co_filename).name == "testing.py":
            return True
        frame = frame.f_back
    return False


def _name(code: CodeType) -> str:
    return f"{Path(code.co_filename).relative_to(PACKAGE)}:{code.co_qualname}"


async def measure() -> tuple[Calls, Calls]:
    """Returns the calls until the first token, and those for the tokens after it."""
    engine = make_engine()
    request = {"messages": [{"role": "user", "content": "1 2 3"}], "stream": True}
    await _answer(engine, request)  # compiles the batch shapes, and what is made once
    first, later = Calls(), Calls()
    with first.counted():
        stream = await engine.chat.completions.create(**request, max_tokens=NUM_TOKENS)
        while not (await anext(stream)).choices[0].delta.content:
            pass
    num_tokens = 0
    with later.counted():
        async for chunk in stream:
            num_tokens += bool(chunk.choices and chunk.choices[0].delta.content)
            if num_tokens == NUM_TOKENS // 2:
                break
    await stream.aclose()
    await engine.unload()
    return first, later


async def _answer(engine: object, request: dict[str, object]) -> None:
    async for _ in await engine.chat.completions.create(**request, max_tokens=4):  # type: ignore[attr-defined]
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", action="store_true", help="list every function")
    add_save_option(parser)
    arguments = parser.parse_args()
    first, later = asyncio.run(measure())
    print(f"to the first token: {first.report(arguments.names)}")
    print(f"each later token:   {later.report(arguments.names, NUM_TOKENS // 2)}")
    if arguments.save:
        phases = {"first token": first.figures(), "later token": later.figures(NUM_TOKENS // 2)}
        named = {f"{phase}: {k}": n for phase, of in phases.items() for k, n in of.items()}
        save("request_calls", arguments.save, named)


if __name__ == "__main__":
    main()
