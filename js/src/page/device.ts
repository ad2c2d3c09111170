// The browser's information about this device.

import { freeBytes } from "./storage";
import { t } from "./texts";

const SMALL_GIB = 4;

/** What some browsers tell beside the standard. */
interface Hints {
  deviceMemory?: number; // GiB
  userAgentData?: { mobile?: boolean };
}

export interface Gpu {
  maxBindingBytes: number;
  features: ReadonlySet<string>;
}

export interface Device {
  gpu: Gpu | null; // one worth using: no software adapter
  noGpuReason: string; // "" if there is a GPU
  memoryBytes: number | null; // at least this much; browsers tell no more than 8 GiB
  freeStorageBytes: number | null;
  isSmall: boolean; // a phone, or a device with little memory
}

export async function detectDevice(): Promise<Device> {
  const [found, freeStorageBytes] = await Promise.all([findGpu(), freeBytes()]);
  const { deviceMemory, userAgentData } = navigator as Hints;
  return {
    gpu: typeof found === "string" ? null : found,
    noGpuReason: typeof found === "string" ? found : "",
    memoryBytes: deviceMemory ? deviceMemory * 2 ** 30 : null,
    freeStorageBytes,
    isSmall: userAgentData?.mobile === true || (deviceMemory ?? Infinity) <= SMALL_GIB,
  };
}

/** Returns a GPU, or the reason why there is none. */
async function findGpu(): Promise<Gpu | string> {
  if (!navigator.gpu) {
    return isSecureContext ? t("noWebGpu") : t("noWebGpuHttp");
  }
  const adapter = await requestAdapter();
  if (adapter === null) return t("noAdapter");
  if (adapter.info?.isFallbackAdapter) return t("softwareAdapter");
  return {
    maxBindingBytes: adapter.limits.maxStorageBufferBindingSize,
    features: new Set(adapter.features),
  };
}

async function requestAdapter(): Promise<GPUAdapter | null> {
  try {
    return await navigator.gpu.requestAdapter();
  } catch {
    return null;
  }
}
