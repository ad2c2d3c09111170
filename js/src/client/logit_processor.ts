// WebLLM's logit processors: functions of JavaScript, which cannot run in a Python worker.

import { configError } from "./errors";

/** Changes logits before a token is drawn, on the CPU. */
export interface LogitProcessor {
  processLogits(logits: Float32Array): Float32Array;
  processSampledToken(token: number): void;
  resetState(): void;
}

/** By model id. */
export type LogitProcessorRegistry = Map<string, LogitProcessor>;

/** Throws ConfigError unless there is nothing to run. */
export function refuseLogitProcessors(registry: LogitProcessorRegistry | undefined): void {
  if (registry === undefined) return;
  throw configError(
    "logitProcessorRegistry: functions of JavaScript cannot cross to a worker that runs Python; " +
      "use logit_bias, or write the processor in Python and register it in the worker's own " +
      "script: MLCEngineConfig(logit_processor_registry={…})",
  );
}
