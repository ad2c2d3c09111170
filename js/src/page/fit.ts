// Whether a model fits a device.

import type { ModelRecord } from "../client";
import type { Device } from "./device";
import { bytes } from "./format";
import { t } from "./texts";

const MB = 1e6;
const WASM_BYTES = 3.5 * 2 ** 30; // what WebAssembly can address, less the runtime

export interface Fit {
  fits: boolean;
  text: string;
}

/** A model that the browser has stored needs no more storage. */
export function fit(model: ModelRecord, device: Device, isKept: boolean): Fit {
  const problem = device.gpu ? gpuProblem(model, device.gpu) : cpuProblem(model);
  const storage = isKept ? null : storageProblem(model, device);
  const found = problem ?? memoryProblem(model, device) ?? smallProblem(model, device) ?? storage;
  return found ? { fits: false, text: found } : { fits: true, text: t("fits") };
}

function gpuProblem(model: ModelRecord, gpu: NonNullable<Device["gpu"]>): string | null {
  const missing = (model.required_features ?? []).filter((name) => !gpu.features.has(name));
  if (missing.length) return t("gpuLacks", missing.join(", "));
  const needed = model.buffer_size_required_bytes ?? 0;
  if (needed <= gpu.maxBindingBytes) return null;
  return t("gpuBuffers", bytes(needed), bytes(gpu.maxBindingBytes));
}

function cpuProblem(model: ModelRecord): string | null {
  return memoryBytes(model) > WASM_BYTES ? t("tooLargeForCpu") : null;
}

function memoryProblem(model: ModelRecord, device: Device): string | null {
  const has = device.memoryBytes;
  if (has === null || memoryBytes(model) <= has / 2) return null;
  return t("needsMemory", bytes(memoryBytes(model)));
}

function smallProblem(model: ModelRecord, device: Device): string | null {
  return device.isSmall && model.low_resource_required === false ? t("notForSmall") : null;
}

function storageProblem(model: ModelRecord, device: Device): string | null {
  const free = device.freeStorageBytes;
  if (free === null || (model.size_bytes ?? 0) <= free) return null;
  return t("tooLargeToStore", bytes(free));
}

function memoryBytes(model: ModelRecord): number {
  return (model.vram_required_MB ?? 0) * MB;
}
