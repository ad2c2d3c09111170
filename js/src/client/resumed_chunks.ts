// The chunks of one answer that survives its worker.

import type { Calls } from "./calls";
import type { Chunks, WorkerChunks } from "./chunks";
import type { Connection } from "./connection";
import type { RequestOptions } from "./request_options";
import { Losses, type AnyChunk, type Resumption } from "./resumption";

type Begin<Chunk> = (calls: Calls, options: RequestOptions) => Promise<WorkerChunks<Chunk>>;

/** If the worker is lost, the answer goes on in the next one with the tokens that it lacks. */
export class ResumedChunks<Chunk extends AnyChunk> implements Chunks<Chunk> {
  private isOpen = true;
  private readonly ending = new AbortController();
  private readonly losses = new Losses();
  private attached: { calls: Calls; chunks: WorkerChunks<Chunk> } | undefined;
  private lastPull: Promise<unknown> = Promise.resolve();

  /** beginIn: begins the stream in a worker. onEnd: called once. */
  constructor(
    private readonly connection: Connection,
    private readonly resumption: Resumption,
    private readonly beginIn: Begin<Chunk>,
    private readonly onEnd: () => void,
  ) {}

  /** Waits until a worker has begun. */
  async begin(): Promise<void> {
    await this.ask((calls) => this.attach(calls));
  }

  /** Pulls wait for each other, since a later chunk may come from another worker. */
  pull(): Promise<Chunk | undefined> {
    const pulled = this.lastPull.then(() => this.next());
    this.lastPull = pulled.catch(() => {});
    return pulled;
  }

  end(): void {
    if (!this.isOpen) return;
    this.ending.abort();
    this.attached?.chunks.end();
    this.finish();
  }

  private async next(): Promise<Chunk | undefined> {
    if (this.isOpen && this.connection.isLost && this.resumption.isComplete) this.finish();
    if (!this.isOpen) return undefined;
    try {
      const chunk = await this.ask((calls) => this.news(calls));
      if (chunk === undefined) this.finish();
      return chunk;
    } catch (error) {
      if (this.ending.signal.aborted) return undefined;
      this.finish();
      throw error;
    }
  }

  /** Returns the next chunk with anything new; undefined at the end. */
  private async news(calls: Calls): Promise<Chunk | undefined> {
    const chunks = await this.attach(calls);
    try {
      for (;;) {
        const chunk = await chunks.pull();
        if (chunk?.choices.some(({ token_ids }) => token_ids?.length)) this.losses.reset();
        const news = chunk && this.resumption.take(chunk);
        if (news || !chunk) return news;
      }
    } catch (error) {
      if (error === calls.lost && this.resumption.isComplete) return undefined;
      throw error;
    }
  }

  private async attach(calls: Calls): Promise<WorkerChunks<Chunk>> {
    if (this.attached?.calls !== calls) {
      this.attached = { calls, chunks: await this.beginIn(calls, this.ending) };
      if (!this.isOpen) this.attached.chunks.end();
    }
    return this.attached.chunks;
  }

  private ask<Result>(ask: (calls: Calls) => Promise<Result>): Promise<Result> {
    return this.connection.ask(ask, { losses: this.losses, signal: this.ending.signal });
  }

  private finish(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.onEnd();
  }
}
