"""The WebGPU backend on a small made-up model, against the same model in numpy."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from threading import current_thread
from typing import Any

import numpy as np
import pytest
from cpu_cases import FakeCheckpoint, program_of_every_op, program_of_odd_sizes
from cpu_reference import Reference
from kernel_case import I8, subgroup_size, variant_of
from test_repack import random_rows

from sampling_cases import INF, PENALTIES, check_logprobs, edits_of, expected
from webllm.artifacts.checkpoint import StorageType
from webllm.backends.webgpu.backend import WebGPUBackend, WebGPUExecutable
from webllm.backends.webgpu.device.native import NativeDevice, NativePipeline
from webllm.backends.webgpu.device.native_adapters import find_adapter
from webllm.backends.webgpu.device.native_submit import NativeRecording
from webllm.backends.webgpu.device.protocol import Dispatch, Limits
from webllm.backends.webgpu.kernels.variant import KernelVariant
from webllm.backends.webgpu.self_test import working_variant
from webllm.errors import DeviceError, DeviceMemoryError
from webllm.models import registry
from webllm.ops.padding import padded
from webllm.ops.program import BatchShape
from webllm.ops.sampled import Sampled
from webllm.ops.sampling import IN_PROMPT, SamplingParams
from webllm.ops.step import Step, StepSequence, sampled_by
from webllm.ops.values import RowOrder

LAYERS, HIDDEN, WIDE, VOCAB, HEAD_DIM = 2, 256, 512, 300, 32
KV_COLS = 2 * HEAD_DIM
BLOCKS = 8
LIMITS = BatchShape(max_tokens=96, max_seqs=4, max_outputs=4, max_blocks=BLOCKS)
MATRICES = {
    "self_attn.q_proj": (StorageType.Q4_K, (HIDDEN, HIDDEN)),
    "self_attn.k_proj": (StorageType.Q4_K, (KV_COLS, HIDDEN)),
    "self_attn.v_proj": (StorageType.Q6_K, (KV_COLS, HIDDEN)),
    "self_attn.o_proj": (StorageType.Q5_0, (HIDDEN, HIDDEN)),
    "mlp.gate_proj": (StorageType.Q4_0, (WIDE, HIDDEN)),
    "mlp.up_proj": (StorageType.Q4_0, (WIDE, HIDDEN)),
    "mlp.down_proj": (StorageType.Q8_0, (HIDDEN, WIDE)),
}


class SmallCheckpoint(FakeCheckpoint):
    """A llama model with weights of many types; embedding and output are one F16 matrix."""

    def __init__(self) -> None:
        super().__init__(
            {
                "model_type": "llama",
                "hidden_size": HIDDEN,
                "num_hidden_layers": LAYERS,
                "intermediate_size": WIDE,
                "num_attention_heads": HIDDEN // HEAD_DIM,
                "num_key_value_heads": 2,
                "rms_norm_eps": 1e-5,
                "max_position_embeddings": 128,
                "vocab_size": VOCAB,
                "tie_word_embeddings": True,
            }
        )
        self.random = np.random.default_rng(0)
        self._vector("model.norm.weight")
        self._matrix("model.embed_tokens.weight", StorageType.F16, (VOCAB, HIDDEN))
        for layer in range(LAYERS):
            for name in ("input_layernorm", "post_attention_layernorm"):
                self._vector(f"model.layers.{layer}.{name}.weight")
            for name, (dtype, shape) in MATRICES.items():
                self._matrix(f"model.layers.{layer}.{name}.weight", dtype, shape)

    def _vector(self, name: str) -> None:
        data = self.random.normal(1, 0.2, HIDDEN).astype("<f4").tobytes()
        self.put(name, StorageType.F32, (HIDDEN,), data)

    def _matrix(self, name: str, dtype: StorageType, shape: tuple[int, int]) -> None:
        largest = 2e-4 if dtype.block_elements == 256 else 0.01  # their scales have scales
        [blocks] = random_rows(dtype, *shape, len(self.tensors), largest)
        self.put(name, dtype, shape, blocks.tobytes())


CHECKPOINT = SmallCheckpoint()
PROGRAM = registry.record(CHECKPOINT, 16 * BLOCKS)


async def loaded(device: NativeDevice, variant: KernelVariant) -> WebGPUBackend:
    backend = WebGPUBackend(device, variant)
    seen = []
    await backend.load(PROGRAM, CHECKPOINT, BLOCKS, LIMITS, lambda *both: seen.append(both))
    assert seen[-1][0] == seen[-1][1]
    return backend


def a_sequence(num_new: int, context: int, blocks: list[int], seed: int = 0) -> StepSequence:
    ids = np.random.default_rng(seed + context).integers(0, VOCAB, num_new).tolist()
    return StepSequence(ids, context, blocks, [num_new - 1])


STEPS = (  # two prompts, then both decode; a third joins
    Step((a_sequence(20, 20, [3, 5]), a_sequence(7, 7, [1], 1))),
    Step((a_sequence(1, 21, [3, 5]), a_sequence(1, 8, [1], 1))),
    Step(
        (a_sequence(1, 22, [3, 5]), a_sequence(1, 9, [1], 1), a_sequence(70, 70, [0, 2, 4, 6, 7]))
    ),
)

SHAPES = (BatchShape(32, 2, 2, BLOCKS), BatchShape(2, 2, 2, BLOCKS), LIMITS)


@pytest.mark.parametrize("name", ["scalar", "workgroup", "subgroup", "workgroup f32"])
async def test_logits_of_batches(device: NativeDevice, name: str) -> None:
    backend = await loaded(device, variant_of(device, name))
    reference = Reference(PROGRAM, CHECKPOINT)
    allowed = {"scalar": 2e-3, "workgroup f32": 1e-2}.get(name, 0.08)  # of the logits' spread
    for step, shape in zip(STEPS, SHAPES, strict=True):
        executable = backend.compile(PROGRAM, shape)
        executable.submit(step)
        tokens = (await executable.sampled()).token_ids
        logits = np.array(await executable.logits()).reshape(len(step.sequences), VOCAB)
        want = reference.logits(step)
        assert np.abs(logits - want).max() < allowed * want.std()
        assert list(tokens) == logits.argmax(1).tolist()


@pytest.mark.parametrize("name", ["scalar", "workgroup f32"])
async def test_every_op(device: NativeDevice, name: str) -> None:
    checkpoint = FakeCheckpoint()
    program = program_of_every_op(checkpoint, StorageType.Q4_0)
    backend = WebGPUBackend(device, variant_of(device, name))
    await backend.load(program, checkpoint, BLOCKS, LIMITS, lambda *_: None)
    executable = backend.compile(program, LIMITS)
    step = Step((StepSequence([1, 2, 3, 4, 5], 5, [3], range(3)),))
    executable.submit(step)
    await executable.sampled()
    want = Reference(program, checkpoint).logits(step)
    logits = np.array(await executable.logits()).reshape(want.shape)
    assert np.abs(logits - want).max() < 1e-2 * want.std()


async def test_sizes_that_no_kernel_has(device: NativeDevice) -> None:
    stored, f32 = FakeCheckpoint(), StorageType.F32
    original = program_of_odd_sizes(stored, f32, f32, RowOrder.HALVES_TO_PAIRS)
    program, checkpoint = padded(original, stored)
    backend = WebGPUBackend(device, variant_of(device, "workgroup f32"))
    await backend.load(program, checkpoint, BLOCKS, LIMITS, lambda *_: None)
    executable = backend.compile(program, LIMITS)
    step = Step((StepSequence([1, 2, 3, 4, 5], 5, [3], range(3)),))
    executable.submit(step)
    await executable.sampled()
    want = Reference(original, stored).logits(step)
    logits = np.array(await executable.logits()).reshape(want.shape)
    assert np.abs(logits - want).max() < 1e-2 * want.std()


async def test_the_token_stays_on_the_device(device: NativeDevice) -> None:
    """Chained steps, two in flight on two executables, sample the same tokens as single steps."""
    backend = await loaded(device, variant_of(device, "workgroup"))
    prefill = backend.compile(PROGRAM, BatchShape(32, 1, 1, BLOCKS))
    decode = backend.compile(PROGRAM, BatchShape(1, 1, 1, BLOCKS))
    prompt = Step((a_sequence(20, 20, [3, 5]),))

    prefill.submit(prompt)
    tokens = [*(await prefill.sampled()).token_ids]
    for context in range(21, 25):
        decode.submit(Step((StepSequence(tokens[-1:], context, [3, 5], [0]),)))
        tokens += (await decode.sampled()).token_ids

    prefill.submit(prompt)
    for context in range(21, 25):
        decode.submit(Step((StepSequence([sampled_by(0)], context, [3, 5], [0]),)))
    chained = [*(await prefill.sampled()).token_ids]
    for _ in range(21, 25):
        chained += (await decode.sampled()).token_ids
    assert chained == tokens


async def read(executable: WebGPUExecutable) -> tuple[Sampled, np.ndarray]:
    sampled = await executable.sampled()
    return sampled, np.array(await executable.logits()).reshape(-1, VOCAB)


@pytest.mark.parametrize("name", ["scalar", "workgroup"])
async def test_penalties_and_logprobs(device: NativeDevice, name: str) -> None:
    """Steps with and without them alternate, two in flight."""
    backend = await loaded(device, variant_of(device, name))
    decode = backend.compile(PROGRAM, BatchShape(2, 2, 2, BLOCKS))
    plain = Step((StepSequence([7], 1, [3], [0]), StepSequence([8], 1, [5], [0])))
    decode.submit(plain)
    drawn, logits = await read(decode)
    first, second = drawn.token_ids
    edits = edits_of((first, 2.0, 1), (second, 0.0, IN_PROMPT), (9, -INF, 0))
    shares = (  # the same tokens at the same place, so with the same logits
        StepSequence([7], 1, [3], [0], replace(PENALTIES, num_logprobs=20), edits),
        StepSequence([8], 1, [5], [0], SamplingParams(1.0, seed=2, num_logprobs=0), edits),
    )
    decode.submit(Step(shares))
    decode.submit(plain)
    sampled = await decode.sampled()
    assert list((await decode.sampled()).token_ids) == [first, second]
    for row, share in enumerate(shares):
        token, logprobs = expected(logits[row], share, 0)
        assert sampled.token_ids[row] == token
        check_logprobs(sampled.logprobs[row], logprobs)


@pytest.mark.parametrize("name", ["scalar", "workgroup"])
async def test_resampling(device: NativeDevice, name: str) -> None:
    """The host's logits are sampled; the next step continues from the result."""
    backend = await loaded(device, variant_of(device, name))
    decode = backend.compile(PROGRAM, BatchShape(2, 2, 2, BLOCKS))
    sampling = SamplingParams(0.7, seed=3, num_logprobs=3, presence_penalty=2.0)
    shares = (
        StepSequence([7], 1, [3], [0], sampling, edits_of((9, 1.0, 2))),
        StepSequence([8], 1, [5], [0], sampling),
    )
    decode.submit(Step(shares).without_sampling())
    _, given = await read(decode)
    given = given[::-1] * np.float32(1.5)
    given[1, 12] = 500.0
    decode.resample(Step(shares), [row.tobytes() for row in given])
    sampled = await decode.sampled()
    for row, share in enumerate(shares):
        token, logprobs = expected(given[row], share, 0)
        assert sampled.token_ids[row] == token
        check_logprobs(sampled.logprobs[row], logprobs)
    following = []
    for token_id in (sampled_by(1), 12):
        decode.submit(Step((StepSequence([token_id], 2, [5], [0]),)))
        following.append((await read(decode))[1])
    np.testing.assert_array_equal(following[0], following[1])


@pytest.mark.parametrize("name", ["workgroup", "subgroup"])
async def test_the_default_limits_of_a_browser_are_enough(device: NativeDevice, name: str) -> None:
    low = Limits(1 << 28, 1 << 27, 8, 16384, 256, 65535)
    small = NativeDevice(find_adapter(device.info.name), low)
    backend = await loaded(small, variant_of(small, name))
    for step, shape in zip(STEPS, SHAPES, strict=True):
        executable = backend.compile(PROGRAM, shape)
        executable.submit(step)
        assert len((await executable.sampled()).token_ids) == len(step.sequences)
    backend.close()


async def test_dispatches_of_a_decoded_layer(device: NativeDevice) -> None:
    one_layer = {}
    for name in ("subgroup", "workgroup"):
        backend = await loaded(device, variant_of(device, name))
        executable = backend.compile(PROGRAM, BatchShape(1, 1, 1, BLOCKS))
        labels = [d.label for d in executable.dispatches()]
        starts = [i for i, label in enumerate(labels) if label == "rope_kv"]
        one_layer[name] = starts[1] - starts[0]
    assert one_layer == {"subgroup": 7, "workgroup": 9}


async def test_the_event_loop_goes_on_while_kernels_are_compiled(
    device: NativeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = await loaded(device, variant_of(device, "workgroup"))
    threads: list[str] = []
    record, pipeline = device.record, device.pipeline

    def noting_record(dispatches: Sequence[Dispatch]) -> NativeRecording:
        threads.append(current_thread().name)
        return record(dispatches)

    def noting_pipeline(*args: Any, **options: Any) -> NativePipeline:
        threads.append(current_thread().name)
        return pipeline(*args, **options)

    monkeypatch.setattr(device, "record", noting_record)
    monkeypatch.setattr(device, "pipeline", noting_pipeline)
    decode = backend.compile(PROGRAM, BatchShape(2, 2, 2, BLOCKS))
    await asyncio.gather(decode.ready(), decode.ready(is_plain=False))
    assert threads
    assert current_thread().name not in threads
    threads.clear()
    share = StepSequence([7], 1, [3], [0], PENALTIES)
    for step in (Step((replace(share, sampling=SamplingParams()),)), Step((share,))):
        decode.submit(step)
        assert len((await decode.sampled()).token_ids) == 1
    assert threads == []


async def test_weights_larger_than_a_binding(
    device: NativeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, shape = STEPS[0], BatchShape(32, 2, 2, BLOCKS)
    results = []
    for limit in (device.limits.max_binding_bytes, 140_000):
        monkeypatch.setattr(device, "limits", replace(device.limits, max_binding_bytes=limit))
        backend = await loaded(device, variant_of(device, "scalar"))
        executable = backend.compile(PROGRAM, shape)
        executable.submit(step)
        await executable.sampled()
        results.append(np.array(await executable.logits()))
    assert backend._memory is not None
    assert max(len(m.shards) for m in backend._memory.weights.matrices.values()) > 1
    np.testing.assert_array_equal(results[0], results[1])


def test_a_kv_cache_larger_than_a_binding_is_refused(
    device: NativeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = WebGPUBackend(device)
    backend.check_fits(PROGRAM, CHECKPOINT, BLOCKS)
    with pytest.raises(DeviceMemoryError, match="smaller context"):
        backend.check_fits(PROGRAM, CHECKPOINT, 1 << 24)
    monkeypatch.setattr(device, "memory_bytes", lambda: 1000)
    with pytest.raises(DeviceMemoryError, match="which has 1,000"):
        backend.check_fits(PROGRAM, CHECKPOINT, BLOCKS)


async def test_the_self_test_falls_back_to_what_works(device: NativeDevice) -> None:
    fastest = KernelVariant.for_device(device)
    assert await working_variant(device, fastest) == fastest
    wrong = KernelVariant(I8, True, subgroup=4 * subgroup_size(device), barriers=True)
    assert await working_variant(device, wrong) == replace(wrong, subgroup=0)


async def test_without_int8_products_kernels_with_barriers_run_in_f32(
    device: NativeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are tried before the scalar kernels, which are much slower on a real GPU."""
    pipeline = device.pipeline

    def without_int8(source: str, *args: Any, **options: Any) -> NativePipeline:
        return pipeline(source.replace("dot4I8Packed", "missing"), *args, **options)

    monkeypatch.setattr(device, "pipeline", without_int8)
    full = variant_of(device, "subgroup")
    assert await working_variant(device, full) == variant_of(device, "workgroup f32")


async def test_a_device_on_which_nothing_works_is_refused(
    device: NativeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> bool:
        return False

    monkeypatch.setattr("webllm.backends.webgpu.self_test._computes_correctly", never)
    with pytest.raises(DeviceError, match="fails the self-test"):
        await working_variant(device, KernelVariant.for_device(device))
