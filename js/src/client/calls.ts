// Calls to one worker that wait for their answers. Knows no engine.

import type { Endpoint } from "./endpoint";
import { rebuild, requestError, unreadableAnswer, workerLost, type WebLLMError } from "./errors";
import type { AnyRequest, Contents, InitProgress, Kind, Results, Throw } from "./messages";

interface Waiting {
  resolve(content: unknown): void;
  reject(error: unknown): void;
}

export class Calls {
  private readonly waiting = new Map<string, Waiting>();
  private readonly hello = newUuid();
  private protocol = 0; // version of what we add to WebLLM's messages; 0: a worker of WebLLM's
  private lost: WebLLMError | undefined;

  constructor(
    private readonly endpoint: Endpoint,
    private readonly onProgress: (report: InitProgress) => void,
  ) {
    endpoint.listen(
      (message) => this.receive(message),
      (reason) => this.lose(reason),
    );
    this.notify("hello", null, this.hello);
  }

  /**
   * Posts a request and returns the content of its reply, which is believed to have its type.
   * Throws what the worker throws, or WorkerLostError.
   */
  async call<K extends Kind>(kind: K, content: Contents[K], uuid = newUuid()): Promise<Results[K]> {
    if (this.lost) throw this.lost;
    const reply = new Promise<unknown>((resolve, reject) => {
      this.waiting.set(uuid, { resolve, reject });
    });
    try {
      this.post(kind, content, uuid);
      return (await reply) as Results[K];
    } finally {
      this.waiting.delete(uuid);
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

  /** Ends one stream; WebLLM's workers can only end every answer. */
  endStream(streamId: string): void {
    if (this.speaks(1)) this.notify("abort", null, streamId);
    else this.notify("interruptGenerate", null);
  }

  /** Whether the worker speaks this version of what we add to WebLLM's protocol. */
  speaks(version: number): boolean {
    return this.protocol >= version;
  }

  close(): void {
    this.endpoint.close();
    this.lose("it was closed");
  }

  private post<K extends Kind>(kind: K, content: Contents[K], uuid: string): void {
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
    if (typeof lock !== "string") return;
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

  private lose(reason: string): void {
    this.lost ??= workerLost(reason);
    for (const { reject } of this.waiting.values()) reject(this.lost);
  }
}

/** Also where crypto.randomUUID is missing: on pages without TLS. */
export function newUuid(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
