// The answers of an engine. They survive their worker if another one takes its place.

import { newUuid } from "../../../src/webllm/workers/uuid.js";
import type { CreateEmbeddingResponse, EmbeddingRequest } from "./api";
import type { Calls } from "./calls";
import { WorkerChunks } from "./chunks";
import type { Connection } from "./connection";
import type { Results } from "./messages";
import type { RequestOptions } from "./request_options";
import { ResumedChunks } from "./resumed_chunks";
import { Resumption, type AnyChunk, type Request } from "./resumption";
import { ChunkStream } from "./stream";

type WholeKind = "chatCompletionNonStreaming" | "completionNonStreaming";
type StreamKind = "chatCompletionStreamInit" | "completionStreamInit";

export class Answers {
  private readonly resumptions = new Set<Resumption>(); // of answers under way

  /** persist: see `Recovery`; without it no answer survives. */
  constructor(
    private readonly connection: Connection,
    private readonly persist: boolean | undefined,
  ) {}

  async whole<K extends WholeKind>(
    kind: K,
    request: Request,
    options: RequestOptions = {},
  ): Promise<Results[K]> {
    options.signal?.throwIfAborted();
    const resumption = this.resumption(request);
    if (!resumption) return this.connection.call(kind, this.params(request), options);
    try {
      return await this.connection.ask((calls) => {
        const answer = calls.call(kind, this.params(resumption.request()), options);
        tellInterrupt(calls, resumption);
        return answer;
      }, options);
    } finally {
      this.end(resumption);
    }
  }

  /** Returns a stream that the worker has begun. */
  async stream<Chunk extends AnyChunk>(
    kind: StreamKind,
    request: Request,
    options: RequestOptions = {},
  ): Promise<ChunkStream<Chunk>> {
    options.signal?.throwIfAborted();
    const resumption = this.resumption(request);
    if (resumption) return this.resumed(kind, resumption, options);
    const chunks = await this.connection.once(
      (calls) => this.begin<Chunk>(calls, kind, request, options),
      options,
    );
    return new ChunkStream(chunks, options);
  }

  async embedding(
    request: EmbeddingRequest,
    options: RequestOptions = {},
  ): Promise<CreateEmbeddingResponse> {
    options.signal?.throwIfAborted();
    return this.connection.ask(
      (calls) => calls.call("embedding", this.params(request), options),
      options,
    );
  }

  /** Ends all answers with finish_reason "abort"; in the next worker, if this one is lost. */
  interrupt(): void {
    for (const each of this.resumptions) each.isInterrupted = true;
    this.connection.notify("interruptGenerate", null);
  }

  /** Ends all answers, deletes their sessions, and closes the connection. */
  close(): void {
    if (this.persist !== undefined) this.connection.endAll(); // the worker stays for others
    for (const each of [...this.resumptions]) this.end(each);
    this.connection.close();
  }

  private async resumed<Chunk extends AnyChunk>(
    kind: StreamKind,
    resumption: Resumption,
    options: RequestOptions,
  ): Promise<ChunkStream<Chunk>> {
    const chunks = new ResumedChunks<Chunk>(
      this.connection,
      resumption,
      async (calls, ending) => {
        const begun = await this.begin<Chunk>(calls, kind, resumption.request(), ending);
        tellInterrupt(calls, resumption);
        return begun;
      },
      () => this.end(resumption),
    );
    const stream = new ChunkStream(chunks, options);
    try {
      await chunks.begin();
    } catch (error) {
      await stream.return();
      options.signal?.throwIfAborted();
      throw error;
    }
    return stream;
  }

  /** Begins a stream in a worker; the uuid of the message that begins it is its id. */
  private async begin<Chunk>(
    calls: Calls,
    kind: StreamKind,
    request: Request,
    { signal }: RequestOptions,
  ): Promise<WorkerChunks<Chunk>> {
    const [only, ...others] = this.connection.models.modelId;
    const selectedModelId = request.model ?? (others.length ? null : (only ?? null));
    const streamId = newUuid();
    const content = { ...this.params(request), selectedModelId, streamId };
    calls.askForStreamReturn();
    await calls.call(kind, content, { uuid: streamId, signal });
    return new WorkerChunks(calls, streamId, selectedModelId);
  }

  /** A restarted worker loads the models that its client expects. */
  private params(request: object) {
    return { request: { ...request }, ...this.connection.models };
  }

  /** Returns nothing if the answer shall not survive its worker. */
  private resumption(request: Request): Resumption | undefined {
    if (this.persist === undefined) return undefined;
    const resumption = Resumption.of(request, this.persist);
    if (resumption) this.resumptions.add(resumption);
    return resumption;
  }

  /** Deletes a session that nobody else knows. */
  private end(resumption: Resumption): void {
    const { sessionId, isOwn } = resumption;
    if (this.resumptions.delete(resumption) && isOwn) this.connection.delete({ sessionId });
  }
}

/** Interrupts an answer in a new worker, if it was interrupted in the lost one. */
function tellInterrupt(calls: Calls, { isInterrupted, sessionId }: Resumption): void {
  if (isInterrupted) calls.notify("interruptGenerate", { requestIds: [sessionId] });
}
