// Calls to one worker that wait for their answers. Knows no engine.

import { newUuid } from "../../../src/webllm/workers/uuid.js";
import type { Endpoint } from "./endpoint";
import { rebuild, requestError, unreadableAnswer, workerLost, WebLLMError } from "./errors";
import type { AnyRequest, Contents, InitProgress, Kind, Results, Throw } from "./messages";
import type { RequestOptions } from "./request_options";

interface Waiting {
  resolve(content: unknown): void;
  reject(error: unknown): void;
}

interface CallOptions extends RequestOptions {
  uuid?: string;
  /** Whether `endAll` leaves it. */
  isKept?: boolean;
}

export class Calls {
  /** The error of every call, once the worker is lost. */
  lost: WebLLMError | undefined;
  private readonly waiting = new Map<string, Waiting>();
  private readonly streams = new Set<string>();
  private readonly kept = new Set<string>(); // uuids of calls that `endAll` leaves
  private readonly hello = newUuid();
  private question: string | undefined; // the uuid of `askForStreamReturn`
  private canReturn = false; // whether the worker knows completionStreamReturn
  private isForeign = false; // whether another reply came before that to the hello

  /** protocol: the version of what we add to WebLLM's messages; 0: a worker of WebLLM's. */
  constructor(
    private readonly endpoint: Endpoint,
    private readonly onProgress: (report: InitProgress) => void,
    public protocol = 0,
  ) {
    endpoint.listen(
      (message) => this.receive(message),
      (reason) => this.lose(reason),
    );
    this.notify("hello", null, this.hello);
  }

  /**
   * Posts a request and returns the content of its reply, which is believed to have its type.
   * Throws what the worker throws, WorkerLostError, or the reason of a signal that aborts, which
   * ends the request in the worker. WebLLM's workers can end answers only, and only all of them.
   */
  async call<K extends Kind>(
    kind: K,
    content: Contents[K],
    { uuid = newUuid(), signal, isKept = false }: CallOptions = {},
  ): Promise<Results[K]> {
    signal?.throwIfAborted();
    if (this.lost) throw this.lost;
    const reply = new Promise<unknown>((resolve, reject) => {
      this.waiting.set(uuid, { resolve, reject });
    });
    const abort = () => {
      this.abort(uuid, signal?.reason);
      if (this.isForeign && WHOLE_ANSWERS.has(kind)) this.notify("interruptGenerate", null);
    };
    signal?.addEventListener("abort", abort);
    if (isKept) this.kept.add(uuid);
    try {
      this.post(kind, content, uuid);
      return (await reply) as Results[K];
    } finally {
      this.waiting.delete(uuid);
      this.kept.delete(uuid);
      signal?.removeEventListener("abort", abort);
    }
  }

  /** Posts a request whose reply nobody waits for, if there is still a worker. */
  notify<K extends Kind>(kind: K, content: Contents[K], uuid = newUuid()): void {
    if (!this.lost) this.post(kind, content, uuid);
  }

  /** Ends a call whose reply will not come; its result is undefined. */
  cancel(uuid: string): void {
    this.waiting.get(uuid)?.resolve(undefined);
  }

  /**
   * Asks a worker of WebLLM's whether it can end one stream: those of before 0.2.84 skip a kind that
   * they do not know if it has no content, and else report an error of their script. The reply comes
   * before that to the message that begins the next stream.
   */
  askForStreamReturn(): void {
    if (this.speaks(1) || this.question) return;
    this.question = newUuid();
    if (!this.lost) this.post("completionStreamReturn", null, this.question);
  }

  /** Notes a stream that has begun, which `endAll` ends. */
  beginStream(streamId: string): void {
    this.streams.add(streamId);
  }

  /** Forgets a stream that has ended. */
  forgetStream(streamId: string): void {
    this.streams.delete(streamId);
  }

  /** Ends one stream; WebLLM's workers of before 0.2.84 can only end every answer. */
  endStream(streamId: string): void {
    if (this.speaks(1)) this.notify("abort", null, streamId);
    else if (!this.canReturn) this.notify("interruptGenerate", null);
    else {
      const ended = this.call("completionStreamReturn", { streamId });
      ended.catch(() => this.notify("interruptGenerate", null)); // the worker refuses
    }
  }

  /** Ends all requests and streams in the worker. */
  endAll(): void {
    for (const uuid of [...this.waiting.keys(), ...this.streams]) {
      if (!this.kept.has(uuid)) this.notify("abort", null, uuid);
    }
  }

  /** Whether the worker speaks this version of what we add to WebLLM's protocol. */
  speaks(version: number): boolean {
    return this.protocol >= version;
  }

  close(): void {
    this.endpoint.close();
    this.lose("it was closed");
  }

  private post(kind: Kind, content: unknown, uuid: string): void {
    try {
      this.endpoint.post({ kind, uuid, content } as AnyRequest);
    } catch (error) {
      throw requestError(`a request must be plain data: ${String(error)}`);
    }
  }

  /** Skips messages of other protocols, as WebLLM does. */
  private receive(message: unknown): void {
    if (this.lost || typeof message !== "object" || message === null) return;
    const { kind, uuid, content, error } = message as Record<string, unknown>;
    if (kind === "initProgressCallback") this.report(uuid, content);
    else if (typeof uuid !== "string") this.skip(kind);
    else if (uuid === this.hello) this.greeted(kind, content);
    else this.answered(kind, uuid, content, error);
  }

  private answered(kind: unknown, uuid: string, content: unknown, error: unknown): void {
    if (!this.speaks(1)) this.isForeign = true;
    if (uuid === this.question) this.canReturn = true;
    else if (kind === "return") this.waiting.get(uuid)?.resolve(content);
    else if (kind === "throw") this.waiting.get(uuid)?.reject(rebuild({ content, error } as Throw));
    else if (kind !== undefined) {
      this.waiting.get(uuid)?.reject(unreadableAnswer(`its kind is ${String(kind)}`));
    }
  }

  /** Gives the worker up: the call whose reply lacks a uuid would wait forever. */
  private skip(kind: unknown): void {
    if (kind !== "return" && kind !== "throw") return;
    this.lose("it sent an answer that has no uuid");
    this.endpoint.close();
  }

  /** Waits for a lock that the worker holds, because no event reports a terminated worker. */
  private greeted(kind: unknown, content: unknown): void {
    if (kind !== "return" || typeof content !== "object" || content === null) return;
    const { protocol, lock } = content as { protocol?: unknown; lock?: unknown };
    this.protocol = typeof protocol === "number" ? protocol : 0;
    this.isForeign &&= !this.speaks(1);
    if (typeof lock !== "string" || this.endpoint.noticesEnd) return;
    const freed = globalThis.navigator?.locks?.request(lock, () => this.lose("it was terminated"));
    freed?.catch(() => {}); // a page that is closing
  }

  /** Calls back. A callback that throws fails the load, as it does without a worker. */
  private report(uuid: unknown, content: unknown): void {
    if (typeof content !== "object" || content === null) return;
    try {
      this.onProgress(content as InitProgress);
    } catch (error) {
      if (typeof uuid !== "string" || !this.waiting.has(uuid)) throw error;
      this.abort(uuid, error);
    }
  }

  private abort(uuid: string, error: unknown): void {
    this.waiting.get(uuid)?.reject(error);
    this.notify("abort", null, uuid);
  }

  private lose(reason: string | WebLLMError): void {
    this.lost ??= reason instanceof WebLLMError ? reason : workerLost(reason);
    for (const { reject } of this.waiting.values()) reject(this.lost);
  }
}

const WHOLE_ANSWERS = new Set<Kind>(["chatCompletionNonStreaming", "completionNonStreaming"]);
