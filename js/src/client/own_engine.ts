// `MLCEngine`: an engine without a worker of the caller's.

import type { MLCEngineConfig } from "./config";
import { WebWorkerMLCEngine } from "./engine";
import type { ChatOptions } from "./messages";
import { fileAt, type Root } from "./root";

/** `root` says where webllm's files are served, see `WebWorkerMLCEngineHandler`. */
export interface OwnEngineConfig extends MLCEngineConfig {
  root?: Root;
}

/**
 * Computes in a worker that it makes for itself, so that the page never waits for Python. The
 * worker lives until `terminate`.
 */
export class MLCEngine extends WebWorkerMLCEngine {
  constructor(config: OwnEngineConfig = {}) {
    super(new Worker(fileAt("worker.js", config.root), { type: "module" }), config);
  }
}

/** An engine with one or more models loaded. */
export async function CreateMLCEngine(
  modelId: string | string[],
  engineConfig?: OwnEngineConfig,
  chatOpts?: ChatOptions | ChatOptions[],
): Promise<MLCEngine> {
  const engine = new MLCEngine(engineConfig);
  try {
    await engine.reload(modelId, chatOpts);
  } catch (error) {
    engine.terminate(); // nobody else can
    throw error;
  }
  return engine;
}
