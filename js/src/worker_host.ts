// Hosts an engine in a worker. Messages may arrive before Python has started.

import { replyStartFailure } from "./client/start_failure";
import { Prefetch } from "./prefetch";
import { fetchRuntime } from "./runtime_files";
import { Starting } from "./starting";

declare global {
  var webllmPrefetch: Prefetch; // Python's downloads ask it first
}

type Post = (message: unknown) => void;

const SERVE = `
import js
from webllm.workers.browser import BrowserPort
from webllm.workers.handler import MLCEngineHandler

lambda endpoint: MLCEngineHandler().serve(BrowserPort(endpoint, js.self.close))
`;

/**
 * Passes the page's messages to a handler in Python, or answers them with an error if Python cannot
 * start. `serving` is Python code whose value serves an endpoint.
 */
export class WorkerHost {
  private readonly files = fetchRuntime();
  private readonly prefetch = (globalThis.webllmPrefetch = new Prefetch());
  private readonly starting: Starting;
  private readonly endpoint: Endpoint;
  private early: unknown[] = [];
  private deliver: Post = (message) => this.keep(message);

  constructor(
    private readonly post: Post,
    private readonly serving = SERVE,
  ) {
    this.starting = new Starting(this.prefetch, this.files.catalogue, post);
    this.endpoint = new Endpoint(post);
    this.files.snapshot.then(
      () => this.starting.advance(0.3),
      () => {}, // `boot` says what is wrong
    );
    this.serve().catch((error: unknown) => this.refuse(error));
  }

  receive(message: unknown): void {
    this.deliver(message);
  }

  private keep(message: unknown): void {
    this.early.push(message);
    this.starting.observe(message ?? {});
  }

  private async serve(): Promise<void> {
    const { boot } = await import("./boot"); // here, so that messages are received meanwhile
    const onProgress = (part: number) => this.starting.advance(0.8 * part);
    const python = await boot({ files: this.files, onProgress });
    const serve: (endpoint: Endpoint) => void = python.runPython(this.serving);
    serve(this.endpoint);
    this.starting.advance(1);
    this.handOver(
      (data) => void this.endpoint.dispatchEvent(new MessageEvent("message", { data })),
    );
  }

  private refuse(error: unknown): void {
    console.error(error);
    this.handOver((message) => replyStartFailure(message, error, this.post));
  }

  private handOver(deliver: Post): void {
    this.deliver = deliver;
    for (const message of this.early.splice(0)) deliver(message);
  }
}

/** The object that Python listens and posts to, like a worker's global scope. */
class Endpoint extends EventTarget {
  constructor(readonly postMessage: Post) {
    super();
  }
}
