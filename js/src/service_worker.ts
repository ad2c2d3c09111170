// A Service Worker that serves all pages of its site. Everything is imported statically, and the
// listeners are added when the script is first evaluated, as browsers require: they answer also in a
// worker that the browser has stopped and starts again, where no handler may have been made yet.

import { boot } from "./boot";
import { NonWorkerEnvironmentError } from "./client/error_classes";
import { errorInfo } from "./client/error_base";
import { configError } from "./client/errors";
import { UNANSWERED } from "./client/messages";
import { EngineHost, type Post } from "./engine_host";
import { HomeClients } from "./home_clients";
import { SERVE_ALL } from "./serving";

const MAX_EVENT_MS = 240_000; // Chrome ends a worker that has an event of five minutes
const LOOK_MS = 3_000; // between two looks for pages that are gone

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

interface PageMessage extends ExtendableEvent {
  data: Partial<Record<"kind" | "uuid" | "from", unknown>> | null;
  source: Source | null;
}

interface Source {
  id: string;
  postMessage: Post;
}

declare const registration: ServiceWorkerRegistration;
declare const clients: { get(id: string): Promise<object | undefined>; claim(): Promise<void> };

/** The pages of the site, in front of one engine. */
class Site {
  private readonly pages = new Map<string, Page>(); // by the browser's id
  private readonly homes: HomeClients;
  private look: ReturnType<typeof setInterval> | undefined;

  constructor(readonly options: Required<HandlerOptions>) {
    const { root, python } = options;
    const folder = new URL(root, location.href);
    const host = new EngineHost({ boot, python, root: folder, turn: holdEngineLock });
    this.homes = new HomeClients(host);
  }

  /** Settles when the event of a message may end. */
  async receive(data: NonNullable<PageMessage["data"]>, source: Source): Promise<void> {
    const { kind, uuid, from = source.id } = data;
    const page = this.page(source);
    page.connections.add(from);
    // Our own clients keep the worker alive by "stay", so that no event takes long.
    const isAnswered = kind !== "keepAlive" && !UNANSWERED.has(kind);
    const isLong = kind === "stay" || (data.from === undefined && isAnswered);
    const answered = isLong && Promise.race([page.answer(uuid), sleep(MAX_EVENT_MS)]);
    this.homes.receive(data, page.post, source.id);
    await answered;
  }

  private page(source: Source): Page {
    const page = this.pages.get(source.id) ?? new Page(source);
    this.pages.set(source.id, page);
    this.look ??= setInterval(() => void this.forgetPages(), LOOK_MS);
    return page;
  }

  private async forgetPages(): Promise<void> {
    for (const [id, page] of this.pages) {
      if (await clients.get(id)) continue;
      this.pages.delete(id);
      page.close();
      for (const each of page.connections) this.homes.close(each, "its page was closed");
    }
    if (this.pages.size > 0) return;
    clearInterval(this.look);
    this.look = undefined;
  }
}

class Page {
  readonly connections = new Set<unknown>(); // their ids
  private readonly waiting = new Map<unknown, () => void>(); // by uuid of a request

  constructor(private readonly source: Source) {}

  readonly post: Post = (message) => {
    const { kind, uuid } = message as { kind: string; uuid: unknown };
    this.source.postMessage(message);
    if (kind !== "initProgressCallback") this.settle(uuid);
  };

  /** Settles when a request is answered, or the page is gone. */
  answer(uuid: unknown): Promise<void> {
    return new Promise((resolve) => this.waiting.set(uuid, resolve));
  }

  close(): void {
    for (const uuid of this.waiting.keys()) this.settle(uuid);
  }

  private settle(uuid: unknown): void {
    this.waiting.get(uuid)?.();
    this.waiting.delete(uuid);
  }
}

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
    const { data, source } = event as Event as PageMessage;
    if (!source || typeof data?.kind !== "string") return; // of another protocol
    (event as Event as ExtendableEvent).waitUntil(served().receive(data, source));
  });
}

/** Waits until no earlier version of this worker has an engine. */
function holdEngineLock(): Promise<void> {
  return new Promise((resolve, reject) => {
    const hold = () => {
      resolve();
      return new Promise<never>(() => {});
    };
    navigator.locks.request(`webllm engine ${registration.scope}`, hold).catch(reject);
  });
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

if (isServiceWorker()) listen();
