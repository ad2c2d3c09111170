// The calls that wait for answers from one worker. Knows no engine.

import type { Endpoint } from "./endpoint";
import { rebuild, requestError, workerLost, type WebLLMError } from "./errors";
import type { AnyAnswer, AnyRequest, InitProgress } from "./messages";

export type Work = Exclude<AnyRequest, { kind: "keepAlive" }>;

interface Waiting {
  resolve(content: unknown): void;
  reject(error: WebLLMError): void;
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

  /** Ends a call whose answer will not come. */
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
      throw requestError(`a request is made of plain data: ${String(error)}`);
    }
  }

  private receive(message: unknown): void {
    if (!isAnswer(message)) return;
    if (message.kind === "initProgressCallback") this.onProgress(message.content);
    else if (message.uuid === this.hello) this.protocol = protocolOf(message);
    else if (message.kind === "return") this.waiting.get(message.uuid)?.resolve(message.content);
    else if (message.kind === "throw") this.waiting.get(message.uuid)?.reject(rebuild(message));
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

function protocolOf(answer: AnyAnswer): number {
  if (answer.kind !== "return") return 0;
  return (answer.content as { protocol?: number } | null)?.protocol ?? 0;
}

/** Messages of other protocols are skipped, as in WebLLM. */
function isAnswer(message: unknown): message is AnyAnswer {
  return typeof message === "object" && message !== null && "kind" in message && "uuid" in message;
}
