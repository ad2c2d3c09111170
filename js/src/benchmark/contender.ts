// A measured engine: it can be started, continue a text, and be closed.

import type { ModelRecord } from "../client";

export interface Settings {
  model: ModelRecord; // a GGUF file
  mlcModelId: string; // the model of WebLLM's catalogue to compare with
  promptTokens: number;
  maxTokens: number;
  numThreads: number; // of the engines that take more than one
}

export interface Machine {
  gpu: string; // the graphics adapter in words, "" without one
  isIsolated: boolean; // may have threads that share memory
}

export interface Usage {
  promptTokens: number;
  completionTokens: number;
}

/** An engine with its model loaded. */
export interface Engine {
  bootMs: number | null; // until it accepts requests; null if unknown
  device: string;
  /** Greedy, to the last of `maxTokens`; calls back for each piece of text. */
  complete(prompt: string, maxTokens: number, onText: () => void): Promise<Usage>;
}

export interface Contender {
  id: string;
  name: string;
  version: string; // of a package that is not ours
  comparedWith: string; // the id of our engine to compare with
  /** The reason why it cannot run here, or "". */
  obstacle(settings: Settings, machine: Machine): string;
  /** Deletes the model from its store. */
  forget(settings: Settings): Promise<void>;
  /** The engine is closed when `life` is aborted, also while it starts. */
  start(settings: Settings, life: AbortSignal): Promise<Engine>;
}

export function withoutGpu({ gpu }: Machine): string {
  return gpu ? "" : "WebGPU finds no graphics adapter here";
}

export function withoutThreads({ isIsolated }: Machine): string {
  return isIsolated ? "" : "threads need a page that is cross-origin isolated";
}

export function modelUrl({ model, model_path }: ModelRecord): URL {
  return new URL(model ?? model_path ?? "", document.baseURI);
}
