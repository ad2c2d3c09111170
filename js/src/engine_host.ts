// Hosts an engine in Python for any number of clients. Messages may arrive before Python has started,
// and JavaScript answers those that need no engine.

import type { PyodideAPI } from "pyodide";
import { hasGpu } from "../../src/webllm/workers/homes.js";
import { newUuid } from "../../src/webllm/workers/uuid.js";
import type { BootOptions } from "./boot";
import type { EngineStats } from "./client/api";
import { PROTOCOL, type Greeting } from "./client/messages";
import { replyStartFailure } from "./client/start_failure";
import { Prefetch } from "./prefetch";
import { fetchRuntime, thisFolder } from "./runtime_files";
import { Starting } from "./starting";

declare global {
  var webllmPrefetch: Prefetch; // Python's downloads ask it first
}

export type Post = (message: unknown) => void;

const MAX_STAY_MS = 20_000;

type Serve = (endpoint: Endpoint) => void;

export interface HostOptions {
  boot(options: BootOptions): Promise<PyodideAPI>;
  /** Python code whose value is a function that serves an endpoint. */
  python: string;
  /** The folder of the files that start Python, by default that of this script. */
  root?: URL;
  /** Settles when Python may start. */
  turn?(): Promise<void>;
  /** Called once Python has failed for good, as by a crash; another host has to take its place. */
  onFatal?(): void;
}

export class EngineHost {
  private readonly clients = new Set<HostedClient>();
  readonly name = `webllm worker ${newUuid()}`; // of its lock
  private readonly failure = new AbortController();
  private readonly lock = heldLock(this.name, this.failure.signal);
  private readonly root: URL;
  private greeting: Promise<Greeting> | undefined;
  private starting: Starting | undefined;
  private serve: Serve | undefined;

  constructor(private readonly options: HostOptions) {
    this.root = options.root ?? thisFolder();
  }

  connect(post: Post): HostedClient {
    const client = new HostedClient(post, {
      greeting: () => (this.greeting ??= this.greet()),
      hasStarted: () => this.starting !== undefined,
      onRequest: (message) => {
        if (!this.serve) this.start().observe(message, post);
      },
      onClose: () => this.clients.delete(client),
    });
    this.clients.add(client);
    if (this.serve) client.serve(this.serve);
    return client;
  }

  /** Starts Python, unless it has started. After a failure the next request tries again. */
  start(): Starting {
    if (this.starting) return this.starting;
    const files = fetchRuntime(this.root);
    globalThis.webllmPrefetch = new Prefetch();
    const starting = new Starting(globalThis.webllmPrefetch, files.catalogue);
    this.starting = starting;
    files.snapshot.then(
      () => starting.advance(0.3),
      () => {}, // `boot` says what is wrong
    );
    const onProgress = (part: number) => starting.advance(0.8 * part);
    this.run({ files, onProgress }).catch((error: unknown) => this.refuse(error));
    return starting;
  }

  private async run(options: BootOptions): Promise<void> {
    await this.options.turn?.();
    const python = await this.options.boot(options);
    const { _api } = python as Partial<FatalHook>;
    if (_api) _api.on_fatal = () => this.fail();
    const serve: unknown = await python.runPythonAsync(this.options.python);
    if (typeof serve !== "function") {
      throw new Error(`the value of the worker's Python code is ${String(serve)}, not a function`);
    }
    this.serve = serve as Serve;
    this.starting?.advance(1);
    for (const client of this.clients) client.serve(this.serve);
  }

  /** Its lock is free then: pages take this worker for ended, which would never reply. */
  private fail(): void {
    this.failure.abort();
    this.options.onFatal?.();
  }

  private refuse(error: unknown): void {
    console.error(error);
    this.starting = undefined;
    for (const client of this.clients) client.refuse(error);
  }

  /** The same for all, so that the second "hello" of a client is answered at once. */
  private async greet(): Promise<Greeting> {
    const [lock, gpu] = await Promise.all([this.lock, hasGpu()]);
    return { protocol: PROTOCOL, lock, gpu, root: this.root.href };
  }
}

/** Pyodide's own, which it does not document. */
interface FatalHook {
  _api: { on_fatal?: () => void };
}

interface Host {
  greeting(): Promise<Greeting>;
  /** Whether Python was started, and has not failed. */
  hasStarted(): boolean;
  /** Called with each message that Python will answer. */
  onRequest(message: unknown): void;
  onClose(): void;
}

interface Stay {
  uuid?: unknown;
  content?: { ms?: unknown };
}

/** One client: what it posts before it is served waits. */
export class HostedClient {
  private readonly endpoint: Endpoint;
  private isServed = false;
  private early: unknown[] = [];

  constructor(
    private readonly post: Post,
    private readonly host: Host,
  ) {
    this.endpoint = new Endpoint(post);
  }

  receive(message: unknown): void {
    const { kind, uuid } = (message ?? {}) as { kind?: unknown; uuid?: unknown };
    if (typeof kind !== "string") return; // of another protocol
    if (kind === "hello") void this.greet(uuid);
    else if (kind === "stay") this.stay(message as Stay);
    else if (kind === "getEngineStats" && !this.host.hasStarted()) this.post(nothing(uuid));
    else if (kind !== "keepAlive") this.request(message);
    else if (uuid !== undefined) this.post({ kind: "heartbeat", uuid });
  }

  /** Ends its requests in Python, which keeps its answers for a while. */
  close(reason: string): void {
    this.host.onClose();
    this.endpoint.dispatchEvent(new CustomEvent("close", { detail: reason }));
  }

  serve(serve: Serve): void {
    serve(this.endpoint);
    this.isServed = true;
    for (const message of this.early.splice(0)) this.endpoint.deliver(message);
  }

  refuse(error: unknown): void {
    for (const message of this.early.splice(0)) replyStartFailure(message, error, this.post);
  }

  private request(message: unknown): void {
    this.host.onRequest(message);
    if (this.isServed) this.endpoint.deliver(message);
    else this.early.push(message);
  }

  /** Answers later. Its event keeps a Service Worker alive meanwhile. */
  private stay({ uuid, content }: Stay): void {
    const ms = Math.min(Number(content?.ms) || 0, MAX_STAY_MS);
    setTimeout(() => this.post({ kind: "heartbeat", uuid }), ms);
  }

  private async greet(uuid: unknown): Promise<void> {
    this.post({ kind: "return", uuid, content: await this.host.greeting() });
  }
}

/** The statistics of an engine that has not started; to ask for them starts none. */
function nothing(uuid: unknown): { kind: "return"; uuid: unknown; content: EngineStats } {
  return { kind: "return", uuid, content: { models: [], loading: [] } };
}

/** The object that Python listens and posts to, like a worker's global scope. */
class Endpoint extends EventTarget {
  constructor(readonly postMessage: Post) {
    super();
  }

  deliver(data: unknown): void {
    this.dispatchEvent(new MessageEvent("message", { data }));
  }
}

/**
 * Takes a Web Lock for as long as this worker lives, or until the signal; returns its name, null
 * without Web Locks.
 */
function heldLock(name: string, signal: AbortSignal): Promise<string | null> {
  return new Promise((resolve) => {
    const hold = () => {
      resolve(name);
      return new Promise((end) => signal.addEventListener("abort", end));
    };
    if (!globalThis.navigator?.locks) return resolve(null);
    navigator.locks.request(name, hold).catch(() => resolve(null));
  });
}
