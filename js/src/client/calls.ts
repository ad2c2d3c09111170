// Calls to one worker that wait for their answers. Knows no engine.

import type { Endpoint } from "./endpoint";
import { rebuild, requestError, unreadableAnswer, workerLost, type WebLLMError } from "./errors";
import type { AnyRequest, InitProgress, Throw } from "./messages";

export type Work = Exclude<AnyRequest, { kind: "keepAlive" }>;

interface Waiting {
  resolve(content: unknown): void;
  reject(error: unknown): void;
}

export class Calls {
  private readonly waiting = new Map<string, Waiting>();
  private readonly hello = newUuid();
  private protocol = 0; // of ours; 0: a worker of WebLLM's
  private lost: WebLLMError | undefined;

  constructor(
    private readonly endpoint: Endpoint,
    private readonly onProgress: (report: InitProgress) => void,
  ) {
    endpoint.listen(
      (message) => this.receive(message),
      (reason) => this.lose(reason),
    );
    this.tell({ kind: "hello", uuid: this.hello, content: null });
  }

  /** The content of the request's answer. Throws what the worker throws, or WorkerLostError. */
  async call(request: Work): Promise<unknown> {
    if (this.lost) throw this.lost;
    const answer = new Promise((resolve, reject) => {
      this.waiting.set(request.uuid, { resolve, reject });
    });
    try {
      this.post(request);
      return await answer;
    } finally {
      this.waiting.delete(request.uuid);
    }
  }

  /** Posts a request whose answer nobody waits for, if there is still a worker. */
  tell(request: Work): void {
    if (!this.lost) this.post(request);
  }

  /** Ends a call that will get no answer. */
  giveUp(uuid: string): void {
    this.waiting.get(uuid)?.resolve(undefined);
  }

  /** WebLLM's workers can only end every answer. */
  endStream(streamId: string): void {
    this.tell(
      this.speaks(1)
        ? { kind: "abort", uuid: streamId, content: null }
        : { kind: "interruptGenerate", uuid: newUuid(), content: null },
    );
  }

  /** Whether the worker speaks this version of what we add to WebLLM's protocol. */
  speaks(version: number): boolean {
    return this.protocol >= version;
  }

  close(): void {
    this.endpoint.close();
    this.lose("it was closed");
  }

  private post(request: Work): void {
    try {
      this.endpoint.post(request);
    } catch (error) {
      throw requestError(`a request must be plain data: ${String(error)}`);
    }
  }

  /** Messages of other protocols are skipped, as in WebLLM. */
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

  /** Ends all calls: an answer without a uuid could belong to any of them. */
  private skip(kind: unknown): void {
    if (kind !== "return" && kind !== "throw") return;
    this.lose("it sent an answer that has no uuid");
    this.endpoint.close();
  }

  /** No event reports a terminated worker, but the lock that it holds becomes free. */
  private greeted(kind: unknown, content: unknown): void {
    if (kind !== "return" || typeof content !== "object" || content === null) return;
    const { protocol, lock } = content as { protocol?: unknown; lock?: unknown };
    this.protocol = typeof protocol === "number" ? protocol : 0;
    if (typeof lock !== "string") return;
    const freed = globalThis.navigator?.locks?.request(lock, () => this.lose("it was terminated"));
    freed?.catch(() => {}); // a page that is closing
  }

  /** A callback that throws fails the load, as it does without a worker. */
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
    this.tell({ kind: "abort", uuid, content: null });
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
