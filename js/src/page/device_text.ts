// Texts about the device, made from the worker's name for it, such as "CPU (relaxed, 2 threads)"
// or "NVIDIA H200 (WebGPU)".

import { t } from "./texts";

/** For a badge: the kind alone. */
export function deviceKind(name: string): string {
  return isCpu(name) ? "CPU" : "WebGPU";
}

/** For a sentence, after "on". */
export function deviceText(name: string): string {
  if (!isCpu(name)) return `WebGPU (${name.replace(/ \(WebGPU\)$/, "")})`;
  const threads = Number(/(\d+) threads?/.exec(name)?.[1] ?? 1);
  return threads === 1 ? t("theCpuThread") : t("theCpuThreads", threads);
}

export function isCpu(name: string): boolean {
  return name.startsWith("CPU");
}
