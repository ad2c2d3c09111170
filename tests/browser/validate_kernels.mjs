// Compiles kernels with Dawn on its null device, which has the limits of large GPUs as well. Not part
// of the tests:
//
//   npm install --prefix /tmp/dawn webgpu
//   PYTHONPATH=tests python tests/browser/kernel_sources.py > kernels.json
//   node tests/browser/validate_kernels.mjs /tmp/dawn kernels.json

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, file] = process.argv.slice(2);
const found = createRequire(`${modules}/`).resolve("webgpu");
const { create, globals } = await import(pathToFileURL(found).href);
Object.assign(globalThis, globals);
const gpu = create(["enable-dawn-features=allow_unsafe_apis", "backend=null"]);
const adapter = await gpu.requestAdapter();
const requiredLimits = {
  maxComputeWorkgroupStorageSize: adapter.limits.maxComputeWorkgroupStorageSize,
  maxComputeInvocationsPerWorkgroup: adapter.limits.maxComputeInvocationsPerWorkgroup,
  maxComputeWorkgroupSizeX: adapter.limits.maxComputeWorkgroupSizeX,
};
const device = await adapter.requestDevice({
  requiredFeatures: ["subgroups"],
  requiredLimits,
});

const kernels = JSON.parse(readFileSync(file, "utf8"));
const failures = new Map();
for (const { label, variant, limits, source, constants } of kernels) {
  if (limits === "large" && requiredLimits.maxComputeInvocationsPerWorkgroup < 1024) continue;
  device.pushErrorScope("validation");
  const code = `enable subgroups;\n${source}`;
  const module = device.createShaderModule({ label, code });
  const compute = { module, entryPoint: "main", constants };
  device.createComputePipeline({ label, layout: "auto", compute });
  const error = await device.popErrorScope();
  if (error !== null) {
    const key = `${label}: ${error.message}`;
    failures.set(key, [...(failures.get(key) ?? []), variant]);
  }
}
for (const [message, variants] of failures) {
  console.log(`${[...new Set(variants)]} x${variants.length}: ${message}\n`);
}
console.log(`${kernels.length} kernels, ${failures.size} kinds of failure`);
process.exit(failures.size === 0 ? 0 : 1);
