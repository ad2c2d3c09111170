// Configuration of an engine, and the list of known models.

import type { LogitProcessorRegistry } from "./logit_processor";
import type * as messages from "./messages";
import prebuilt from "./prebuilt.json";

export type InitProgressReport = messages.InitProgress;
export type InitProgressCallback = (report: InitProgressReport) => void;

/** A configuration in any of WebLLM's spellings; `modelsOf` says which models it has. */
export type AppConfigLike = messages.AppConfig;

/** A configuration whose models can be read. */
export interface AppConfig extends AppConfigLike {
  model_list: messages.ModelRecord[];
}

/** `logitProcessorRegistry` is refused: the device and all that computes belong to the worker. */
export interface MLCEngineConfig {
  appConfig?: AppConfigLike;
  initProgressCallback?: InitProgressCallback;
  logitProcessorRegistry?: LogitProcessorRegistry;
  logLevel?: messages.LogLevel;
}

/** The built-in list of models. */
export const prebuiltAppConfig = prebuilt as AppConfig;

/** The models that a configuration names, under either of WebLLM's names. */
export function namedModels(appConfig: AppConfigLike): messages.ModelRecord[] | undefined {
  return appConfig.model_list ?? appConfig.models ?? undefined;
}

/** The models that a configuration names, or else the built-in ones. */
export function modelsOf(appConfig: AppConfigLike): messages.ModelRecord[] {
  return namedModels(appConfig) ?? prebuiltAppConfig.model_list;
}

/** Returns the options of each model; none if there are no options. */
export function toList(
  options: messages.ChatOptions | messages.ChatOptions[] | undefined,
): messages.ChatOptions[] | undefined {
  return options === undefined || Array.isArray(options) ? options : [options];
}
