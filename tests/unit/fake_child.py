"""A worker process that starts well and then writes the nonsense that its argument names.

It answers the hello, waits for a given number of requests, writes `NONSENSE[name]` and runs until
its standard input ends. "closes" closes its output as well, "stays" does so and never ends, "exits"
ends at once.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from webllm.workers.frames import FrameReader, frame

NONSENSE = {
    "a length of 4 GiB": b"\xff\xff\xff\xff" + b"x" * 100,
    "no msgpack": b"\x01\x00\x00\x00\xc1",
    "no map": frame([1, 2]),
    "nested too deep": (100_000).to_bytes(4, "little") + b"\x91" * 100_000,
    "a uuid that is a number": frame({"kind": "return", "uuid": 5}),
    "no uuid": frame({"kind": "throw", "content": "no"}),
    "half a message, exits": frame({"kind": "return", "uuid": "u", "content": "x" * 99})[:50],
    "half a message, closes": b"\x10\x00",
    "a length of 4 GiB, stays": b"\xff\xff\xff\xff",
}


def main(name: str, num_requests: int) -> None:
    frames = FrameReader()
    messages: list[dict[str, Any]] = []
    while len(messages) < 1 + num_requests:
        num_before = len(messages)
        messages += frames.feed(os.read(0, 1 << 16))
        if not num_before and messages:
            os.write(1, frame({"kind": "return", "uuid": messages[0]["uuid"]}))
    os.write(1, NONSENSE[name])
    if name.endswith("exits"):
        sys.exit(3)
    if name.endswith("closes"):
        os.close(1)
    while os.read(0, 1 << 16) or name.endswith(("stays", "closes")):
        time.sleep(0.01)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
