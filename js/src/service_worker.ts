// A Service Worker that serves all pages of its site. Everything is imported statically, and the
// listeners are added when the script is first evaluated, as browsers require: they answer also in a
// worker that the browser has stopped and starts again, where no handler may have been made yet.

import { NonWorkerEnvironmentError } from "./client/error_classes";
import { errorInfo } from "./client/error_base";
import { configError } from "./client/errors";
import { SERVE_ALL } from "./serving";
import { Site, type PageMessage, type Source } from "./site_pages";

export interface HandlerOptions {
  /** The folder of the files that start Python; by default that of the worker's script. */
  root?: string | URL;
  /**
   * Python code for an engine of your own, logit processors or custom requests. Its value is the
   * `serve_endpoint` of a `ServiceWorkerMLCEngineHandler`.
   */
  python?: string;
}

interface ExtendableEvent extends Event {
  waitUntil(promise: Promise<unknown>): void;
}

interface MessageFrom extends ExtendableEvent {
  data: Partial<PageMessage> | null;
  source: Source | null;
}

declare const clients: { claim(): Promise<void> };

let site: Site | undefined;

/** Returns the site, for which the first handler, or else the first message, decides. */
function served({ root = "./", python = SERVE_ALL }: HandlerOptions = {}): Site {
  return (site ??= new Site({ root, python }));
}

/**
 * Serves the pages that this Service Worker controls. It may be made at any time, also when the
 * worker is activated as in WebLLM's documentation; with options, when its script is evaluated,
 * because the browser starts the worker again without activating it.
 */
export class ServiceWorkerMLCEngineHandler {
  constructor(options: HandlerOptions = {}) {
    if (!isServiceWorker()) {
      const message = "ServiceWorkerMLCEngineHandler has to be made in a Service Worker's script";
      throw new NonWorkerEnvironmentError(errorInfo("NonWorkerEnvironmentError", message));
    }
    const { root, python } = served(options).options;
    if (String(options.root ?? root) === String(root) && (options.python ?? python) === python)
      return;
    throw configError(
      "this worker serves pages already, with other options; make its handler at the top of its " +
        "script, not in an event",
    );
  }
}

function isServiceWorker(): boolean {
  return "registration" in self && "clients" in self;
}

function listen(): void {
  self.addEventListener("activate", (event) => {
    (event as ExtendableEvent).waitUntil(clients.claim()); // WebLLM's client needs a controller
  });
  self.addEventListener("message", (event) => {
    const { data, source } = event as Event as MessageFrom;
    const isOurs = typeof data?.kind === "string" && (data.uuid ?? data.from) !== undefined;
    if (!source || !isOurs) return; // of another protocol
    (event as Event as ExtendableEvent).waitUntil(served().receive(data as PageMessage, source));
  });
}

if (isServiceWorker()) listen();
