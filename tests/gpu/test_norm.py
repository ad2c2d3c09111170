"""RMS norm against numpy."""

import numpy as np
import pytest
from kernel_case import F32, Bench, close, variants

import reference
from webllm.backends.webgpu.device.protocol import Device
from webllm.backends.webgpu.kernels.activation import ActivationFormat
from webllm.backends.webgpu.kernels.norm import Branch, norm
from webllm.ops.program import BatchShape
from webllm.ops.step import Step, StepSequence

SHAPE = BatchShape(max_tokens=7, max_seqs=2, max_outputs=5, max_blocks=4)


def a_step(tokens: int) -> Step:
    return Step([StepSequence([1] * tokens, tokens, [0], range(min(tokens, 3)))])


@pytest.mark.parametrize("format", list(ActivationFormat))
@pytest.mark.parametrize("cols", [32, 576, 2304])
@pytest.mark.parametrize("with_branch", [False, True])
def test_norm(device: Device, format: ActivationFormat, cols: int, with_branch: bool) -> None:
    bench = Bench(device)
    random = np.random.default_rng(cols)
    x = random.normal(0, 3, (7, cols)).astype(np.float32)
    branch = random.normal(0, 2, (7, cols)).astype(np.float32)
    gamma, branch_gamma = random.normal(1, 0.3, (2, cols)).astype(np.float32)
    step = bench.step(a_step(5), SHAPE)
    for variant in variants(device):
        x_slice = bench.upload(x)
        out = bench.encoded(format, 7, cols)
        added = Branch(bench.upload(branch), bench.upload(branch_gamma)) if with_branch else None
        bench.run(
            norm(
                device, variant, step=step, rows=step.tokens, x=x_slice, gamma=bench.upload(gamma),
                cols=cols, eps=1e-5, out=out, branch=added,
            )
        )  # fmt: skip
        want_x = x.astype(np.float64)
        if with_branch:
            want_x[:5] = reference.add_branch(x, branch, branch_gamma, 1e-5)[:5]
        got_x = bench.read(x_slice)[: x.size].reshape(x.shape)
        np.testing.assert_allclose(got_x, want_x, rtol=1e-5, atol=1e-5)
        got = bench.decoded(out, 5, cols)
        close(format, got, reference.norm(want_x, gamma, 1e-5)[:5])


def test_rows_are_outputs(device: Device) -> None:
    bench = Bench(device)
    x = np.random.default_rng(0).normal(0, 3, (5, 64)).astype(np.float32)
    step = bench.step(a_step(5), SHAPE)
    for variant in variants(device):
        out = bench.encoded(F32, 5, 64)
        gamma = bench.upload(np.ones(64, np.float32))
        bench.run(
            norm(
                device, variant, step=step, rows=step.outputs, x=bench.upload(x), gamma=gamma,
                cols=64, eps=1e-6, out=out,
            )
        )  # fmt: skip
        close(F32, bench.decoded(out, 3, 64), reference.norm(x, np.ones(64), 1e-6)[:3])


def test_zeros_stay_zeros(device: Device) -> None:
    bench = Bench(device)
    step = bench.step(a_step(1), SHAPE)
    for variant in variants(device):
        for format in ActivationFormat:
            out = bench.encoded(format, 1, 64)
            x, gamma = bench.upload(np.zeros((7, 64), np.float32)), bench.upload(np.ones(64, "f"))
            bench.run(
                norm(
                    device, variant, step=step, rows=step.tokens, x=x, gamma=gamma, cols=64,
                    eps=1e-6, out=out,
                )
            )  # fmt: skip
            assert not bench.decoded(out, 1, 64).any()
