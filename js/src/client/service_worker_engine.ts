// `ServiceWorkerMLCEngine`: an engine that all pages of a site share, and that survives its worker.

import { Home } from "../../../src/webllm/workers/homes.js";
import type { ChatOptions } from "./messages";
import type { Root } from "./root";
import { loaded, SharedEngine, type EngineHost, type SharedEngineConfig } from "./shared_engine";

export interface ServiceWorkerEngineConfig extends SharedEngineConfig {
  /** Default: "auto", the best that the browser has. */
  host?: Exclude<EngineHost, "offscreen"> | "auto";
  /** Where webllm's files are served, see `WebWorkerMLCEngineHandler`. */
  root?: Root;
}

/** Goes on with the next worker if the browser ends one, see `SharedEngine`. */
export class ServiceWorkerMLCEngine extends SharedEngine {
  /** keepAliveMs: ms between two questions whether the worker still runs, which also keep it alive. */
  constructor(config: ServiceWorkerEngineConfig = {}, keepAliveMs = 10_000) {
    const { host = "auto", root } = config;
    super(config, () => new Home({ host, root, keepAliveMs }));
  }

  /** As WebLLM's documentation spells it. */
  get missedHeatbeat(): number {
    return this.missedHeartbeat;
  }
}

/**
 * Connects to the engine that this site's pages share, and loads one or more models unless they are
 * loaded. Throws NoServiceWorkerAPIError or ServiceWorkerInitializationError if there is no worker.
 */
export async function CreateServiceWorkerMLCEngine(
  modelId: string | string[],
  engineConfig?: ServiceWorkerEngineConfig,
  chatOpts?: ChatOptions | ChatOptions[],
  keepAliveMs = 10_000,
): Promise<ServiceWorkerMLCEngine> {
  const engine = new ServiceWorkerMLCEngine(engineConfig, keepAliveMs);
  return loaded(engine, engineConfig, modelId, chatOpts);
}
