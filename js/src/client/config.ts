// The configuration of an engine, and the models that a configuration names.

import type { LogitProcessorRegistry } from "./logit_processor";
import type * as messages from "./messages";
import prebuilt from "./prebuilt.json";

export type InitProgressReport = messages.InitProgress;
export type InitProgressCallback = (report: InitProgressReport) => void;

/** A configuration as a caller may write it: the list is called `model_list` or `models`. */
export type AppConfigLike = messages.AppConfig;

/** A configuration with its list under the name `model_list`. */
export interface AppConfig extends AppConfigLike {
  model_list: messages.ModelRecord[];
}

/** A `logitProcessorRegistry` is refused: processors run in the worker and are registered there. */
export interface MLCEngineConfig {
  appConfig?: AppConfigLike;
  initProgressCallback?: InitProgressCallback;
  logitProcessorRegistry?: LogitProcessorRegistry;
  logLevel?: messages.LogLevel;
}

/**
 * The built-in catalogue: two models of webllm's own, and those of WebLLM's list under its ids, without
 * `model_lib`. `reload` refuses those that do not run yet with UnsupportedModelError.
 */
export const prebuiltAppConfig = prebuilt as AppConfig;

/** Returns the models that a configuration names; undefined if it has no list. */
export function namedModels(appConfig: AppConfigLike): messages.ModelRecord[] | undefined {
  return appConfig.model_list ?? appConfig.models ?? undefined;
}
