"""Every kernel compiles in Chromium's compiler (Tint), which is often stricter than naga."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from playwright.async_api import Page

from browser.kernel_sources import Kernel, kernels

COMPILE = """
async ({ kernels, withPipelines }) => {
  const adapter = await navigator.gpu.requestAdapter();
  const requiredLimits = { maxStorageBuffersPerShaderStage: 8 };
  const device = await adapter.requestDevice({ requiredFeatures: ["subgroups"], requiredLimits });
  const problem = async ({ label, variant, source, constants }) => {
    device.pushErrorScope("validation");
    const module = device.createShaderModule({ label, code: `enable subgroups;\n${source}` });
    const scope = device.popErrorScope();
    const { messages } = await module.getCompilationInfo();
    const found = messages.map(({ lineNum, message }) => `line ${lineNum}: ${message}`);
    const error = await scope;
    if (error !== null) found.push(error.message);
    if (withPipelines && found.length === 0) {
      const compute = { module, entryPoint: "main", constants };
      try {
        await device.createComputePipelineAsync({ layout: "auto", compute });
      } catch (failure) {
        found.push(failure.message);
      }
    }
    return found.map((text) => `${label} (${variant}): ${text}`);
  };
  return (await Promise.all(kernels.map(problem))).flat();
}
"""


async def problems(page: Page, chosen: list[Kernel], with_pipelines: bool) -> list[str]:
    given = {"kernels": [asdict(kernel) for kernel in chosen], "withPipelines": with_pipelines}
    found: list[str] = await page.evaluate(COMPILE, given)
    return found


def rendered() -> list[Kernel]:
    """Returns the kernels for the limits that every browser has."""
    found = [kernel for kernel in asyncio.run(kernels()) if kernel.limits == "small"]
    assert len(found) > 500
    return found


KERNELS = rendered()


async def test_the_compiler_accepts_every_kernel(page: Page) -> None:
    assert not await problems(page, KERNELS, with_pipelines=False)


async def test_pipelines_of_each_kind_of_kernel(page: Page) -> None:
    """One pipeline for each label, with constants: SwiftShader takes a third of a second each."""
    one_each = {
        (kernel.label, kernel.variant): kernel
        for kernel in KERNELS
        if kernel.variant in ("workgroup", "subgroup32")
    }
    assert not await problems(page, list(one_each.values()), with_pipelines=True)


async def test_a_wrong_kernel_is_a_problem(page: Page) -> None:
    """Tint requires uniform control flow around barriers; naga does not."""
    kernel = next(k for k in KERNELS if k.label == "norm" and k.variant == "workgroup")
    source = kernel.source.replace("let row = ", "if thread > 3u { return; }\n  let row = ", 1)
    assert source != kernel.source
    wrong = Kernel(kernel.label, kernel.variant, kernel.limits, source, kernel.constants)
    (problem, *_) = await problems(page, [wrong], with_pipelines=False)
    assert "uniform control flow" in problem
