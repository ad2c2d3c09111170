// `ServiceWorkerMLCEngine`: an engine that all pages of a site share, and that survives its worker.

import { Home, type HomeError } from "../../../src/webllm/workers/homes.js";
import { withUrls } from "../catalogue";
import type { AppConfigLike, MLCEngineConfig } from "./config";
import type { Endpoint } from "./endpoint";
import { WebWorkerMLCEngine } from "./engine";
import { ofItsName } from "./errors";
import { refuseLogitProcessors } from "./logit_processor";
import type { ChatOptions } from "./messages";
import { askToKeepModels } from "./model_store";
import type { Root } from "./root";

/** Where the engine runs. */
export type EngineHost = "service-worker" | "shared-worker" | "tab";

export interface ServiceWorkerEngineConfig extends MLCEngineConfig {
  /** Default: "auto", the best that the browser has. */
  host?: EngineHost | "auto";
  /** Where webllm's files are served, see `WebWorkerMLCEngineHandler`. */
  root?: Root;
  /** Whether the worker's journal keeps answers until they are read; else only if they ask for it. */
  persist?: boolean;
}

/**
 * If the worker is lost, the next one loads the models again, and each unfinished request is sent
 * again: streams go on with the tokens that they lack.
 */
export class ServiceWorkerMLCEngine extends WebWorkerMLCEngine {
  private readonly homes: Homes;

  /** keepAliveMs: ms between two questions whether the worker still runs, which also keep it alive. */
  constructor(config: ServiceWorkerEngineConfig = {}, keepAliveMs = 10_000) {
    refuseLogitProcessors(config.logitProcessorRegistry); // before there is a home to close
    const homes = new Homes(config, keepAliveMs);
    super({ open: () => homes.open(), persist: config.persist ?? true }, config);
    this.homes = homes;
  }

  /** Sets the list of models for the next reload. Paths in it are those of this page. */
  override setAppConfig(appConfig: AppConfigLike): void {
    const here = globalThis.document?.baseURI;
    super.setAppConfig(here ? withUrls(appConfig, new URL(here)) : appConfig);
  }

  /** Resolves once a worker is there; rejects with the reason why there is none. */
  get ready(): Promise<void> {
    return this.homes.current.ready.catch((error) => {
      throw ofItsName(error);
    });
  }

  /** What serves this engine; "" until `ready`. */
  get host(): EngineHost | "" {
    return this.homes.current.host as EngineHost | "";
  }

  /** The number of heartbeats that the worker did not answer, one after another. */
  get missedHeartbeat(): number {
    return this.homes.current.missedHeartbeat;
  }

  /** As WebLLM's documentation spells it. */
  get missedHeatbeat(): number {
    return this.missedHeartbeat;
  }
}

/** Makes one home after another, each as the last one has lost its worker. */
class Homes {
  current!: Home;

  constructor(
    private readonly config: ServiceWorkerEngineConfig,
    private readonly keepAliveMs: number,
  ) {}

  open(): Endpoint {
    const { host = "auto", root } = this.config;
    try {
      this.current = new Home({ host, root, keepAliveMs: this.keepAliveMs });
    } catch (error) {
      throw ofItsName(error);
    }
    return homeEndpoint(this.current);
  }
}

export function homeEndpoint(home: Home): Endpoint {
  return {
    noticesEnd: true,
    post: (message) => home.postMessage(message),
    listen(onMessage, onLost) {
      home.addEventListener("message", (event) => onMessage((event as MessageEvent).data));
      home.addEventListener("close", (event) => {
        const { detail } = event as CustomEvent<string | HomeError>;
        onLost(typeof detail === "string" ? detail : ofItsName(detail));
      });
    },
    close: () => home.close(),
  };
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
  askToKeepModels(engineConfig?.appConfig);
  try {
    await engine.ready;
    await engine.reload(modelId, chatOpts);
  } catch (error) {
    engine.terminate(); // nobody else can
    throw error;
  }
  return engine;
}
