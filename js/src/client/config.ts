// What an engine is configured with, and the catalogue of models.

import type { AppConfig, ChatOptions, InitProgress, LogLevel } from "./messages";
import prebuilt from "./prebuilt.json";

export type InitProgressReport = InitProgress;
export type InitProgressCallback = (report: InitProgressReport) => void;

/** Logit processors and the device belong to the worker, and are set in its script. */
export interface MLCEngineConfig {
  appConfig?: AppConfig;
  initProgressCallback?: InitProgressCallback;
  logLevel?: LogLevel;
}

/** The models that webllm knows by name. */
export const prebuiltAppConfig = prebuilt as AppConfig;

/** One for each model, or none. */
export function toList(
  options: ChatOptions | ChatOptions[] | undefined,
): ChatOptions[] | undefined {
  return options === undefined || Array.isArray(options) ? options : [options];
}
