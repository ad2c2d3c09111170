// The ports of a Chrome extension's background worker. Each is a client of the one engine, to which
// it has a connection of its own.

import type { Home } from "../../src/webllm/workers/homes.js";
import type { Port } from "./chrome";
import { errorInfo } from "./client/error_base";
import type { ErrorName } from "./client/error_codes";
import { UNANSWERED } from "./client/messages";
import { claimSessions, isForeign, refusal } from "./foreigners";

export type OpenHome = () => Home;

interface Message {
  kind?: unknown;
  uuid?: unknown;
  from?: unknown; // who sends it: `Home` says so, WebLLM's client does not
  worker?: unknown; // for whom it is, which the port says
  content?: unknown;
}

const MAX_WORKERS = 5; // that may end one after another before the first reply

/**
 * If the worker is lost, our client is told so, and greets the next one. WebLLM's client is not told:
 * its calls under way throw, and its next one goes to the next worker, with its settings.
 */
export class ExtensionPort {
  private home: Home | undefined;
  private isConnected = true;
  private from: unknown;
  private hello: unknown; // uuid of the last one
  private greeting: Message | null | undefined; // our client's first; null once it is answered
  private numWorkers = 0;
  private readonly waiting = new Set<unknown>(); // uuids of WebLLM's calls
  private readonly settings = new Map<string, Message>(); // of WebLLM's client

  constructor(
    private readonly port: Port,
    private readonly openHome: OpenHome,
  ) {
    port.onDisconnect.addListener(() => this.leave());
  }

  /** Ends the connection from this side. */
  disconnect(): void {
    this.leave();
    this.port.disconnect();
  }

  /** `modelIds`: those that foreigners may name; by default any that is no source. */
  receive(data: unknown, modelIds?: ReadonlySet<string>): void {
    const { from, worker: _, ...message } = (data ?? {}) as Message;
    const { kind } = message;
    if (typeof kind !== "string" || !this.isConnected) return; // of another protocol
    this.from = from;
    if (isForeign(this.port)) {
      const reason = refusal(message, modelIds);
      if (reason !== null) return this.deny(message, reason);
      claimSessions(message, this.port.sender?.origin ?? "");
      if (kind === "interruptGenerate") message.content = null; // its own answers, not those named
    }
    if (kind === "bye") return this.bye();
    if (kind === "keepAlive" && !this.home) return; // which wakes no engine
    if (kind === "hello") this.greet(message);
    else if (from !== undefined && !this.home)
      return this.say({ kind: "lost", reason: "it ended" });
    if (from === undefined) this.note(kind, message);
    this.home ??= this.connect();
    this.home.postMessage(message);
  }

  /** Says to our client, if this is its greeting, that the reply comes once the user has decided. */
  delay(data: unknown): void {
    const { from, kind, uuid } = (data ?? {}) as Message;
    if (from === undefined || kind !== "hello") return;
    this.from = from;
    this.say({ kind: "wait", uuid });
  }

  /** Answers a message with the reason why its sender gets no engine. */
  refuse(data: unknown, reason: string): void {
    const { from, kind, uuid } = (data ?? {}) as Message;
    this.from = from;
    if (from !== undefined) this.say({ kind: "lost", uuid, reason });
    else if (!UNANSWERED.has(kind) && kind !== "keepAlive") {
      this.fail(uuid, "ServiceWorkerInitializationError", reason);
    }
  }

  /** Nobody waits for a reply to a setting: the engine keeps its own. */
  private deny({ kind, uuid }: Message, reason: string): void {
    if (!UNANSWERED.has(kind)) this.fail(uuid, "RequestError", reason);
  }

  private leave(): void {
    this.isConnected = false;
    this.bye();
  }

  private greet(message: Message): void {
    this.hello = message.uuid;
    if (this.greeting !== null) this.greeting = message;
  }

  private bye(): void {
    this.home?.close();
    this.home = undefined;
  }

  private connect(): Home {
    const home = this.openHome();
    this.numWorkers += 1;
    home.addEventListener("message", (event) => {
      const { data } = event as MessageEvent<Message & { content?: object }>;
      if (data.kind === "heartbeat" && this.from === undefined) return; // it knows no such kind
      if (data.kind !== "initProgressCallback") this.waiting.delete(data.uuid);
      const isGreeting = data.kind === "return" && data.uuid === this.hello;
      if (isGreeting) this.greeting = null;
      const { content } = data;
      // The client sees where the engine is. Its end it hears from here: sites cannot see locks.
      this.say(isGreeting ? { ...data, content: { ...content, host: home.host } } : data);
    });
    home.addEventListener("close", (event) => this.lose((event as CustomEvent<unknown>).detail));
    for (const setting of this.settings.values()) home.postMessage(setting);
    return home;
  }

  private note(kind: string, message: Message): void {
    if (kind.startsWith("set")) this.settings.set(kind, message);
    else if (kind !== "keepAlive" && !UNANSWERED.has(kind)) this.waiting.add(message.uuid);
  }

  /** `reason`: an error if there was no worker at all. */
  private lose(reason: unknown): void {
    this.home = undefined;
    const { greeting } = this;
    if (greeting && !(reason instanceof Error) && this.numWorkers < MAX_WORKERS) {
      this.home = this.connect(); // nothing else has been asked
      return this.home.postMessage(greeting);
    }
    this.sayLost(reason instanceof Error ? reason.message : String(reason));
  }

  private sayLost(reason: string): void {
    if (this.from !== undefined) return this.say({ kind: "lost", uuid: this.hello, reason });
    for (const uuid of this.waiting) {
      this.fail(uuid, "WorkerLostError", `the worker is lost: ${reason}; ask again`);
    }
    this.waiting.clear();
  }

  private fail(uuid: unknown, name: ErrorName, text: string): void {
    const error = errorInfo(name, text);
    this.say({ kind: "throw", uuid, content: `${name}: ${text}`, error });
  }

  private say(message: object): void {
    const to = this.from;
    if (this.isConnected) this.port.postMessage(to === undefined ? message : { ...message, to });
  }
}
