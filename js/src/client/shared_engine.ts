// An engine that others use too, by the homes of homes.js, and that survives its worker.

import { Home, type HomeError } from "../../../src/webllm/workers/homes.js";
import { withUrls } from "../catalogue";
import type { AppConfigLike, MLCEngineConfig } from "./config";
import type { Endpoint } from "./endpoint";
import { WebWorkerMLCEngine } from "./engine";
import { ofItsName } from "./errors";
import { refuseLogitProcessors } from "./logit_processor";
import type { ChatOptions } from "./messages";
import { askToKeepModels } from "./model_store";

const FIRST_WITH_HOMES = 3; // protocol

/** Where the engine runs; the last one in an extension. */
export type EngineHost = "service-worker" | "shared-worker" | "tab" | "offscreen";

export interface SharedEngineConfig extends MLCEngineConfig {
  /** Whether the worker's journal keeps answers until they are read; else only if they ask for it. */
  persist?: boolean;
}

/**
 * If the worker is lost, the next one loads the models again, and each unfinished request is sent
 * again: streams go on with the tokens that they lack.
 */
export class SharedEngine extends WebWorkerMLCEngine {
  private readonly homes: Homes;

  constructor(config: SharedEngineConfig, open: () => Home, onLost?: () => void) {
    refuseLogitProcessors(config.logitProcessorRegistry); // before there is a home to close
    const homes = new Homes(open, onLost);
    const { persist = true } = config;
    super({ open: () => homes.open(), persist, protocol: FIRST_WITH_HOMES }, config);
    this.homes = homes;
  }

  /** Sets the list of models for the next reload. Paths in it are those of this page. */
  override setAppConfig(appConfig: AppConfigLike): void {
    const here = globalThis.document?.baseURI;
    super.setAppConfig(here ? withUrls(appConfig, new URL(here)) : appConfig);
  }

  /** Resolves once a worker is there; rejects with the reason why there is none. */
  get ready(): Promise<void> {
    return this.home.ready.catch((error) => {
      throw ofItsName(error);
    });
  }

  /** What serves this engine; "" until `ready`. */
  get host(): EngineHost | "" {
    return this.home.host as EngineHost | "";
  }

  /** The number of heartbeats that the worker did not answer, one after another. */
  get missedHeartbeat(): number {
    return this.home.missedHeartbeat;
  }

  protected get home(): Home {
    return this.homes.current;
  }
}

/** Makes one home after another, each as the last one has lost its worker. */
class Homes {
  current!: Home;

  constructor(
    private readonly make: () => Home,
    private readonly onLost: (() => void) | undefined,
  ) {}

  open(): Endpoint {
    try {
      this.current = this.make();
    } catch (error) {
      throw ofItsName(error);
    }
    if (this.onLost) this.current.addEventListener("close", this.onLost);
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

/** Waits for the worker of a new engine, and loads its models; terminates it if that fails. */
export async function loaded<Engine extends SharedEngine>(
  engine: Engine,
  config: SharedEngineConfig | undefined,
  modelId: string | string[],
  chatOpts: ChatOptions | ChatOptions[] | undefined,
): Promise<Engine> {
  askToKeepModels(config?.appConfig);
  try {
    await engine.ready;
    await engine.reload(modelId, chatOpts);
  } catch (error) {
    engine.terminate(); // nobody else can
    throw error;
  }
  return engine;
}
