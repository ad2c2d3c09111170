// Numbers, names and errors as people read them.

import { ServiceWorkerInitializationError, StorageFullError, WorkerLostError } from "../client";
import { parseName } from "../client/variants";
import { t } from "./texts";

const UNITS = ["kB", "MB", "GB"];

/** "98 MB", in powers of 1000 as shops and downloads have it. */
export function bytes(count: number): string {
  let value = count / 1000;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = value < 10 && unit > 0 ? 1 : 0;
  return `${value.toLocaleString(t("language"), { maximumFractionDigits: digits })} ${UNITS[unit]}`;
}

export function decimals(value: number, digits: number): string {
  return value.toLocaleString(t("language"), {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
}

/** An error's message. Leaves out advice for programmers, which follows the semicolon. */
export function errorText(error: unknown): string {
  if (error instanceof ServiceWorkerInitializationError) {
    return t(navigator.onLine ? "workerFailed" : "workerFailedOffline");
  }
  const text = error instanceof Error ? error.message : String(error);
  const isForPrograms = error instanceof WorkerLostError || error instanceof StorageFullError;
  return isForPrograms ? (text.split("; ")[0] ?? text) : text;
}

/** Says that another tab loaded a model, "" if unknown which. */
export function replacedText(by: string): string {
  return t("anotherLoaded", modelName(by) || t("anotherModel"));
}

/** The text with a capital first letter, unless it begins with a source such as https://… or hf:… */
export function sentence(text: string): string {
  if (/^[a-z][a-z-]*:\S/.test(text)) return text;
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** "SmolLM2 135M Instruct", without the quantization that ends ids of WebLLM's list. */
export function modelName(modelId: string): string {
  const name = parseName(modelId)?.model ?? modelId;
  return name.replaceAll("-", " ").replaceAll("_", " ");
}
