// For the background worker of a Chrome extension. Everything is imported statically.

import { boot } from "./boot";
import type { Port } from "./chrome";
import { errorInfo } from "./client/error_base";
import { NonWorkerEnvironmentError } from "./client/error_classes";
import { configError } from "./client/errors";
import { SharedEngine } from "./client/shared_engine";
import { EngineHost } from "./engine_host";
import { offscreenHome, ownHome } from "./extension_homes";
import { ExtensionPort, type OpenHome } from "./extension_ports";
import { HomeClients } from "./home_clients";
import { SERVE_ALL } from "./serving";

const HOSTS = ["auto", "offscreen", "service-worker"];

export interface ExtensionHandlerOptions {
  /**
   * Where the engine runs. Default: in the offscreen document if the manifest has that permission,
   * else in this worker, which the browser may stop at any time.
   */
  host?: "auto" | "offscreen" | "service-worker";
  /** The folder of webllm's files in the extension. Default: that of this script. */
  root?: string | URL;
}

/**
 * Serves all ports of an extension with one engine. Ports from outside of it, and from pages that it
 * has a script in, can ask for answers alone. `onmessage` is the listener of each port's messages.
 */
export class ExtensionServiceWorkerMLCEngineHandler {
  /** The port that was set last; null once it is disconnected. */
  port: Port | null = null;
  private readonly ports = new Map<Port, ExtensionPort>();
  private readonly openHome: OpenHome;
  private own: SharedEngine | undefined;

  /** Without a port only `engine` is served, until `setPort`. */
  constructor(port: Port | null = null, options: ExtensionHandlerOptions = {}) {
    if (!("registration" in self) || !globalThis.chrome?.runtime?.id) {
      const where = "in the background worker of an extension";
      const message = `ExtensionServiceWorkerMLCEngineHandler has to be made ${where}`;
      throw new NonWorkerEnvironmentError(errorInfo("NonWorkerEnvironmentError", message));
    }
    this.openHome = homesOf(options);
    if (port) this.setPort(port);
  }

  /** The same engine for code of this worker, which cannot connect to itself by a port. */
  get engine(): SharedEngine {
    return (this.own ??= new SharedEngine({}, this.openHome));
  }

  /** Adds a port, and keeps those from before. */
  setPort(port: Port): void {
    this.port = port;
    if (this.ports.has(port)) return;
    this.ports.set(port, new ExtensionPort(port, this.openHome));
    port.onDisconnect.addListener(() => this.onPortDisconnect(port));
  }

  onPortDisconnect(port: Port): void {
    this.ports.delete(port);
    if (this.port === port) this.port = null;
  }

  /** Receives a message of a port, by default of the one that was set last. */
  onmessage(event: unknown, port = this.port): void {
    if (port) this.ports.get(port)?.receive(event);
  }

  /** Posts to the port that was set last. */
  postMessage(message: object): void {
    this.port?.postMessage(message);
  }
}

function homesOf({ host = "auto", root = "./" }: ExtensionHandlerOptions): OpenHome {
  if (!HOSTS.includes(host)) {
    throw configError(`host is ${JSON.stringify(host)}; known are ${HOSTS.join(", ")}`);
  }
  const folder = new URL(root, location.href);
  const isOffscreen = host === "offscreen" || (host === "auto" && globalThis.chrome?.offscreen);
  const { href } = new URL("offscreen.html", folder);
  if (isOffscreen) return () => offscreenHome(async () => href);
  const clients = new HomeClients(
    (onFatal) => new EngineHost({ boot, python: SERVE_ALL, root: folder, onFatal }),
  );
  return () => ownHome(clients);
}
