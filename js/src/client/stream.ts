// A streamed answer, as callers read it.

import type { Chunks } from "./chunks";
import type { RequestOptions } from "./request_options";

/**
 * Leaving the loop, or calling `return()`, ends the answer in the worker at once. A stream without
 * references ends when it is garbage-collected. A signal that aborts ends it too; `next` then throws
 * the signal's reason.
 */
export class ChunkStream<Chunk> implements AsyncIterableIterator<Chunk> {
  private isOpen = true;
  private readonly end: () => void;

  constructor(
    private readonly chunks: Chunks<Chunk>,
    private readonly options: RequestOptions = {},
  ) {
    this.end = ending(chunks, options);
    ABANDONED.register(this, this.end, this);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<Chunk, undefined>> {
    if (!this.isOpen) return END;
    try {
      const value = await this.chunks.pull();
      if (this.isOpen) this.options.signal?.throwIfAborted();
      if (value !== undefined) return { done: false, value };
    } catch (error) {
      this.close();
      throw error;
    }
    this.close();
    return END;
  }

  async return(): Promise<IteratorResult<Chunk, undefined>> {
    this.close();
    return END;
  }

  private close(): void {
    this.isOpen = false;
    this.end();
    ABANDONED.unregister(this);
  }
}

const END = { done: true, value: undefined } as const;

/** Ends streams that were dropped before their end. The registered value must not refer to one. */
const ABANDONED = new FinalizationRegistry<() => void>((end) => end());

/** Returns a function that ends an answer, which a signal calls too. */
function ending(chunks: Chunks<unknown>, { signal }: RequestOptions): () => void {
  const end = () => {
    signal?.removeEventListener("abort", end);
    chunks.end();
  };
  signal?.addEventListener("abort", end);
  if (signal?.aborted) end();
  return end;
}
