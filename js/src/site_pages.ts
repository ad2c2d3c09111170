// The pages of a Service Worker's site, in front of one engine.

import { boot } from "./boot";
import { errorInfo } from "./client/error_base";
import { UNANSWERED } from "./client/messages";
import { EngineHost, type Post } from "./engine_host";
import { HomeClients } from "./home_clients";
import { OpenRequests, type Request } from "./open_requests";

const MAX_EVENT_MS = 240_000; // Chrome ends a worker that has an event of five minutes
const LOOK_MS = 3_000; // between two looks for pages that are gone
const MAX_WORKERS = 3; // that receive one request, which may be what ends them
const LOST_STREAM = "the browser has stopped the worker in mid-stream; ask again";
const GIVEN_UP = `${MAX_WORKERS} workers have ended with this request; change it before you send it again`;

export interface SiteOptions {
  root: string | URL;
  python: string;
}

export interface Source {
  id: string;
  postMessage: Post;
}

export interface PageMessage {
  kind: string;
  uuid?: unknown;
  from?: unknown;
}

declare const registration: ServiceWorkerRegistration;
declare const clients: { get(id: string): Promise<Source | undefined> };

export class Site {
  private readonly pages = new Map<string, Page>(); // by the browser's id
  private readonly homes: HomeClients;
  private readonly open = new OpenRequests();
  private recovered: Promise<Promise<void>[]> | undefined; // their answers
  private look: ReturnType<typeof setInterval> | undefined;

  constructor(readonly options: SiteOptions) {
    const { root, python } = options;
    const folder = new URL(root, location.href);
    let turn: Promise<void> | undefined; // which this worker keeps, also after a failed start
    this.homes = new HomeClients((onFatal) => {
      this.recovered = undefined; // after a crash of Python
      return new EngineHost({
        boot,
        python,
        root: folder,
        turn: () => (turn ??= holdEngineLock()),
        onFatal,
      });
    });
  }

  /** Settles when the event of a message may end. */
  async receive(data: PageMessage, source: Source): Promise<void> {
    if (data.from === undefined) return this.receiveFromOther(data, source);
    const page = this.page(source);
    page.connections.add(data.from);
    // By "stay" a page keeps the worker alive, so that no event takes long.
    const ended = data.kind === "stay" && page.answer(data.uuid);
    this.homes.receive(data, page.post, source.id);
    await ended;
  }

  /** Receives a message of WebLLM's client. Its event lasts until it is answered. */
  private async receiveFromOther(data: PageMessage, source: Source): Promise<void> {
    const isFirst = !this.recovered;
    const recovered = await (this.recovered ??= this.recover());
    if (data.kind !== "keepAlive" && typeof data.uuid === "string") {
      this.open.add(source.id, keyOf(data as Request), data as Request);
    }
    const answered = this.answer(data, source);
    await Promise.all(isFirst ? [answered, ...recovered] : [answered]);
  }

  /** Receives what WebLLM's clients have asked a worker that was stopped before it answered. */
  private async recover(): Promise<Promise<void>[]> {
    const answers: Promise<void>[] = [];
    for (const { page, numWorkers, message } of await this.open.all()) {
      const source = await clients.get(page);
      const isSetting = UNANSWERED.has(message.kind);
      if (!source) this.open.forget(page);
      else if (message.kind === "completionStreamNextChunk") {
        this.refuse(message, LOST_STREAM, source);
      } else if (numWorkers >= MAX_WORKERS && !isSetting) this.refuse(message, GIVEN_UP, source);
      else {
        this.open.add(page, keyOf(message), message, numWorkers + 1);
        answers.push(this.answer(message, source));
      }
    }
    return answers;
  }

  private async answer(data: PageMessage, source: Source): Promise<void> {
    const page = this.page(source);
    page.connections.add(source.id);
    const isAnswered = data.kind !== "keepAlive" && !UNANSWERED.has(data.kind);
    const answered = isAnswered && page.answer(data.uuid);
    this.homes.receive(data, page.post, source.id);
    await answered;
  }

  /** Fails a request, as the pull of a stream: its client does not say how much of it has come. */
  private refuse({ uuid }: Request, why: string, source: Source): void {
    const error = errorInfo("WorkerLostError", why);
    this.page(source).post({ kind: "throw", uuid, content: `${error.name}: ${why}`, error });
  }

  private page(source: Source): Page {
    let page = this.pages.get(source.id);
    if (!page) {
      page = new Page(source, (uuid) => this.open.delete(source.id, uuid));
      this.pages.set(source.id, page);
    }
    this.look ??= setInterval(() => void this.forgetPages(), LOOK_MS);
    return page;
  }

  private async forgetPages(): Promise<void> {
    for (const [id, page] of this.pages) {
      if (await clients.get(id)) continue;
      this.pages.delete(id);
      page.close();
      this.open.forget(id);
      for (const each of page.connections) this.homes.close(each, "its page was closed");
    }
    if (this.pages.size > 0) return;
    clearInterval(this.look);
    this.look = undefined;
  }
}

/** Of a setting only the last one counts. */
function keyOf({ kind, uuid }: Request): string {
  return UNANSWERED.has(kind) ? kind : uuid;
}

class Page {
  readonly connections = new Set<unknown>(); // their ids
  private readonly waiting = new Map<unknown, () => void>(); // by uuid of a request

  constructor(
    private readonly source: Source,
    private readonly onAnswered: (uuid: string) => void,
  ) {}

  readonly post: Post = (message) => {
    const { kind, uuid, to } = message as { kind: string; uuid: unknown; to?: unknown };
    this.source.postMessage(message);
    if (kind === "initProgressCallback") return;
    this.settle(uuid);
    if (to === undefined && typeof uuid === "string" && kind !== "heartbeat") this.onAnswered(uuid);
  };

  /** Settles when a request is answered or the page is gone, or after the longest time of an event. */
  answer(uuid: unknown): Promise<void> {
    this.settle(uuid); // asked again
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.settle(uuid), MAX_EVENT_MS);
      this.waiting.set(uuid, () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  close(): void {
    for (const uuid of this.waiting.keys()) this.settle(uuid);
  }

  private settle(uuid: unknown): void {
    this.waiting.get(uuid)?.();
    this.waiting.delete(uuid);
  }
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
