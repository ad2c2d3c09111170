"""Buffers, pipelines, recordings, readback and errors of the device on `navigator.gpu`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from browser.conftest import RunPython

SETUP = """
import struct
from js import Uint8Array
from webllm.backends.webgpu.device.browser import find_adapter, open_device
from webllm.backends.webgpu.device.protocol import Dispatch, Slice

ADD = '''
override AMOUNT: u32 = 1u;
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  y[id.x] = x[id.x] + AMOUNT;
}
'''

def whole(buffer):
    return Slice(buffer, 0, buffer.size)

def words(data):
    return struct.unpack(f"={len(data) // 4}I", data)

def text_of(value):
    return repr(value)

async def failure(answer):
    try:
        return repr(await answer)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

device = await open_device(await find_adapter())
a, b = device.buffer(10), device.buffer(256)
"""


@pytest.fixture
async def evaluate(run_python: RunPython) -> RunPython:
    """Runs code that sees `device`, the buffers `a` and `b`, and the other names of SETUP."""
    await run_python(SETUP)
    return run_python


async def test_a_software_adapter_says_so(evaluate: RunPython) -> None:
    assert await evaluate("device.info.kind.name") == "SOFTWARE"
    assert await evaluate("device.limits.max_storage_buffers") >= 8


async def test_buffers_are_zeroed_and_rounded_up(evaluate: RunPython) -> None:
    assert await evaluate("a.size") == 256
    assert await evaluate("await device.read(whole(a)) == bytes(256)")


async def test_bytes_of_python_and_of_javascript_are_written(evaluate: RunPython) -> None:
    """The last word is padded with zeros."""
    read: Any = await evaluate("""
        device.write(Slice(b, 8, 8), memoryview(b"abcde"))
        device.write(Slice(b, 16, 8), Uint8Array.new([1, 2, 3, 4, 5, 6]))
        (await device.read(Slice(b, 4, 20))).hex()
    """)
    assert bytes.fromhex(read) == b"\0\0\0\0abcde\0\0\0\1\2\3\4\5\6\0\0"


async def test_dispatches_see_what_earlier_ones_wrote(evaluate: RunPython) -> None:
    """This also holds for replays that wait for kernels to compile."""
    results = await evaluate("""
        one, ten = device.pipeline(ADD), device.pipeline(ADD, {"AMOUNT": 10})
        recording = device.record([
            Dispatch(one, (whole(a), whole(b)), (1, 1, 1)),
            Dispatch(ten, (whole(b), whole(a)), (1, 1, 1)),
            Dispatch(one, (whole(a), whole(b)), (1, 1, 1)),
        ])
        first = device.replay(recording, whole(b))
        second = device.replay(recording, Slice(b, 0, 4))
        text_of([words(await second)[0], *words(await first)])
    """)
    assert results == repr([12 + 11, *[12] * 64])


async def test_writes_and_replays_keep_their_order(evaluate: RunPython) -> None:
    """The order holds while the kernel compiles, and afterwards."""
    results = await evaluate("""
        pipeline = device.pipeline(ADD, {"AMOUNT": 3})
        recording = device.record([Dispatch(pipeline, (whole(a), whole(b)), (1, 1, 1))])
        async def five():
            results = []
            for i in range(5):
                device.write(Slice(a, 0, 4), struct.pack("=I", 100 * i))
                results.append(device.replay(recording, Slice(b, 0, 4)))
            return [words(await result)[0] for result in results]
        text_of([await five(), await five()])
    """)
    assert results == repr([[3, 103, 203, 303, 403]] * 2)


async def test_a_kernel_that_does_not_compile_names_itself(evaluate: RunPython) -> None:
    """The device keeps working afterwards."""
    message = await evaluate("""
        broken = device.pipeline(ADD.replace("AMOUNT;", "NOTHING;"), label="broken")
        dispatch = Dispatch(broken, (whole(a), whole(b)), (1, 1, 1))
        await failure(device.replay(device.record([dispatch])))
    """)
    assert message.startswith("DeviceError: the kernel broken does not compile")
    assert "unresolved value 'NOTHING'" in message
    assert await evaluate("await device.read(Slice(a, 0, 4)) == bytes(4)")


@pytest.mark.parametrize("bound", ["(whole(a),)", "(whole(a), whole(a))"])
async def test_wrong_bindings_are_refused(evaluate: RunPython, bound: str) -> None:
    message = await evaluate(f"""
        dispatch = Dispatch(device.pipeline(ADD), {bound}, (1, 1, 1), "add")
        await failure(device.replay(device.record([dispatch])))
    """)
    assert message.startswith("DeviceError: the browser refuses a dispatch")


async def test_memory_that_is_not_there_is_a_memory_error(evaluate: RunPython) -> None:
    """It is raised at once beyond a buffer's limit, otherwise with the next answer."""
    message = await evaluate("""
        async def ask(): device.buffer(1 << 50, "weights")
        await failure(ask())
    """)
    assert message.startswith("DeviceMemoryError: weights takes")
    message = await evaluate("""
        most = device.limits.max_buffer_bytes
        large = [device.buffer(most, "large") for _ in range((8 << 30) // most)]
        await failure(device.read(Slice(a, 0, 4)))
    """)
    assert message.startswith("DeviceMemoryError: the browser has no")


async def test_a_lost_device_is_an_error(evaluate: RunPython) -> None:
    message = await evaluate("""
        answer = device.replay(device.record([]), whole(a))
        device.close()
        await failure(device.read(whole(a)))
    """)
    assert message.startswith("DeviceLostError: the GPU stopped answering")


@pytest.mark.parametrize("subgroup", [0, 4])
async def test_the_variants_for_real_gpus_compute_correctly(
    evaluate: RunPython, subgroup: int
) -> None:
    """Barriers are slow here, so only the self-test's product runs."""
    assert await evaluate(f"""
        from webllm.backends.webgpu.kernels.activation import ActivationFormat
        from webllm.backends.webgpu.kernels.variant import KernelVariant
        from webllm.backends.webgpu.self_test import working_variant
        variant = KernelVariant(ActivationFormat.I8, True, subgroup={subgroup}, barriers=True)
        await working_variant(device, variant) == variant
    """)


async def test_python_in_a_browser_has_the_list_and_the_features_of_the_gpu(
    run_python: RunPython,
) -> None:
    found = await run_python("""
        import json
        from webllm.backends.auto import device_facts
        from webllm.webllm_list import webllm_models
        gpu, cpu = await device_facts("webgpu"), await device_facts("cpu")
        found = [len(webllm_models()), sorted(gpu.features), gpu.memory_bytes, cpu.features]
        json.dumps(found)
    """)
    num_models, features, *others = json.loads(found)
    assert num_models == 165
    assert "core-features-and-limits" in features
    assert others == [None, None]
