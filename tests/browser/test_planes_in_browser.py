"""Weights of several planes in a Web Worker: the same values in one plane give the same logits."""

from __future__ import annotations

import pytest

from browser.conftest import RunPython

CODE = """
import random
from pyodide.ffi import to_js
from struct import pack
from webllm.artifacts.checkpoint import (
    Checkpoint, Description, GGUFTokenizer, Plane, StorageType, TensorInfo
)
from webllm.backends.auto import open_backend
from webllm.ops.program import (
    BatchShape, Embed, KVCacheShape, Linear, Norm, Program, Sample, TakeOutputs
)
from webllm.ops.step import Step, StepSequence
from webllm.ops.values import Encoding, Rows, Value, Weight

VOCAB, COLS = 41, 96
GROUPS = VOCAB * COLS // 32
LIMITS = BatchShape(max_tokens=8, max_seqs=1, max_outputs=8, max_blocks=1)

rng = random.Random(0)
groups = [[rng.randrange(15) for _ in range(32)] for _ in range(GROUPS)]
scales = [pack("<e", rng.uniform(0.01, 0.1)) for _ in range(GROUPS)]
minimums = [pack("<e", rng.uniform(-0.5, 0.5)) for _ in range(GROUPS)]

def nibbles(codes):  # GGUF's order
    return bytes(low | high << 4 for low, high in zip(codes[:16], codes[16:]))

codes = b"".join(
    bytes(low | high << 4 for low, high in zip(each[::2], each[1::2])) for each in groups
)
raised = [[code + 1 for code in each] for each in groups]
STORED = {
    "MLC_Q4": [codes, b"".join(scales)],
    "Q4_0": [b"".join(s + nibbles(c) for s, c in zip(scales, raised))],
    "AFFINE4_32": [codes, b"".join(scales), b"".join(minimums)],
    "Q4_1": [b"".join(s + m + nibbles(c) for s, m, c in zip(scales, minimums, groups))],
}

class Files:
    def __init__(self, contents):
        self.contents = contents

    async def gather(self, name, ranges):
        return [self.contents[name][start:end] for start, end in ranges]

    async def read(self, name, start, end):
        return to_js(memoryview(self.contents[name][start:end]))

    def close(self):
        pass

def checkpoint(name):
    planes = {f"plane {i}": data for i, data in enumerate(STORED[name])}
    table = pack(f"<{VOCAB * COLS}f", *(random.Random(1).gauss(0, 1) for _ in range(VOCAB * COLS)))
    contents = {"table": table, "gamma": pack(f"<{COLS}f", *[1.0] * COLS), **planes}
    f32, dtype = StorageType.F32, StorageType[name]
    tensors = [
        TensorInfo("table", (VOCAB, COLS), f32, (Plane("table", 0),)),
        TensorInfo("gamma", (COLS,), f32, (Plane("gamma", 0),)),
        TensorInfo("head", (VOCAB, COLS), dtype, tuple(Plane(file, 0) for file in planes)),
    ]
    named = {tensor.name: tensor for tensor in tensors}
    return Checkpoint(Description({}, named, GGUFTokenizer({}), "0badcafe"), Files(contents))

def program():
    x, z = Value(0, Rows.TOKENS, COLS), Value(1, Rows.TOKENS, COLS, Encoding.ACTIVATION)
    y, logits = Value(2, Rows.TOKENS, VOCAB), Value(3, Rows.OUTPUTS, VOCAB)
    ops = (
        Embed(Weight.of("table", VOCAB, COLS), 1.0, x),
        Norm(x, Weight.of("gamma", COLS), 1e-5, z),
        Linear(z, Weight.of("head", VOCAB, COLS), y),
        TakeOutputs(y, logits),
        Sample(logits),
    )
    return Program(ops, KVCacheShape(1, 1, 16), VOCAB)

async def logits(device, name):
    backend = await open_backend(device)
    with checkpoint(name) as opened:
        await opened.read_vectors()
        recorded = program()
        await backend.load(recorded, opened, 1, LIMITS, lambda *_: None)
    executable = backend.compile(recorded, LIMITS)
    executable.submit(Step([StepSequence([3, 1, 4], 3, [0], range(3))]))
    await executable.sampled()
    found = bytes(memoryview(await executable.logits()).cast("B"))
    backend.close()
    return found

async def same(device, first, second):
    found = await logits(device, first)
    assert any(found)
    assert found == await logits(device, second)
"""


@pytest.mark.parametrize("device", ["cpu", "webgpu"])
async def test_the_same_values_in_one_plane(run_python: RunPython, device: str) -> None:
    await run_python(CODE)
    await run_python(f"await same({device!r}, 'MLC_Q4', 'Q4_0')")
    await run_python(f"await same({device!r}, 'AFFINE4_32', 'Q4_1')")
