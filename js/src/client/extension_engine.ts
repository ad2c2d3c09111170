// `ExtensionServiceWorkerMLCEngine`: the engine behind a Chrome extension's background worker, for the
// extension's own pages, and for web pages and other extensions that it lets connect.

import { Home } from "../../../src/webllm/workers/homes.js";
import type { Port } from "../chrome";
import type { ChatOptions } from "./messages";
import { loaded, SharedEngine, type SharedEngineConfig } from "./shared_engine";

export interface ExtensionMLCEngineConfig extends SharedEngineConfig {
  /** Whose engine it is. Default: the extension of this page. */
  extensionId?: string;
  /**
   * Called each time that the connection ends: the port is disconnected, the engine has ended (also if
   * it only sleeps), or nobody has answered the first message. The next call connects again.
   */
  onDisconnect?: () => void;
}

/** Connects again if the browser ends the background worker or its engine, see `SharedEngine`. */
export class ExtensionServiceWorkerMLCEngine extends SharedEngine {
  readonly extensionId: string | undefined;

  /** keepAliveMs: ms between two messages that keep the background worker alive. */
  constructor(config: ExtensionMLCEngineConfig = {}, keepAliveMs = 10_000) {
    const { extensionId, onDisconnect } = config;
    super(config, () => new Home({ host: "extension", extensionId, keepAliveMs }), onDisconnect);
    this.extensionId = extensionId;
  }

  /** The port of chrome.runtime that is in use; undefined until `ready`. */
  get port(): Port | undefined {
    return this.home.port;
  }
}

/**
 * Connects to the engine of an extension, and loads one or more models unless they are loaded. Throws
 * ServiceWorkerInitializationError if there is no such extension, or if it does not let this page in.
 */
export async function CreateExtensionServiceWorkerMLCEngine(
  modelId: string | string[],
  engineConfig?: ExtensionMLCEngineConfig,
  chatOpts?: ChatOptions | ChatOptions[],
  keepAliveMs = 10_000,
): Promise<ExtensionServiceWorkerMLCEngine> {
  const engine = new ExtensionServiceWorkerMLCEngine(engineConfig, keepAliveMs);
  return loaded(engine, engineConfig, modelId, chatOpts);
}
