// A streamed answer of the worker, pulled chunk by chunk.

import { newUuid, type Calls } from "./calls";
import { unreadableAnswer } from "./errors";

/**
 * Leaving the loop, or calling `return()`, ends the answer in the worker at once. A stream without
 * references ends when it is garbage-collected.
 */
export class ChunkStream<Chunk> implements AsyncIterableIterator<Chunk> {
  private isOpen = true;
  private readonly pulls = new Set<string>();

  constructor(
    private readonly calls: Calls,
    private readonly streamId: string,
    private readonly selectedModelId: string | null,
  ) {
    ABANDONED.register(this, { calls, streamId }, this);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<Chunk, undefined>> {
    if (!this.isOpen) return END;
    try {
      const chunk = await this.pull();
      if (typeof chunk === "object" && chunk !== null) {
        return { done: false, value: chunk as Chunk };
      }
      if (chunk !== undefined && chunk !== null) {
        this.calls.endStream(this.streamId);
        throw unreadableAnswer(`a chunk is an object, received a ${typeof chunk}`);
      }
    } catch (error) {
      this.close();
      throw error;
    }
    this.close();
    return END;
  }

  async return(): Promise<IteratorResult<Chunk, undefined>> {
    if (this.isOpen) {
      this.close();
      this.calls.endStream(this.streamId);
      for (const uuid of this.pulls) this.calls.cancel(uuid);
    }
    return END;
  }

  private close(): void {
    this.isOpen = false;
    ABANDONED.unregister(this);
  }

  private async pull(): Promise<unknown> {
    const uuid = newUuid();
    const content = { streamId: this.streamId, selectedModelId: this.selectedModelId };
    this.pulls.add(uuid);
    try {
      return await this.calls.call("completionStreamNextChunk", content, uuid);
    } finally {
      this.pulls.delete(uuid);
    }
  }
}

const END = { done: true, value: undefined } as const;

/** Ends streams that were dropped before their end. The registered value must not refer to one. */
const ABANDONED = new FinalizationRegistry<{ calls: Calls; streamId: string }>(
  ({ calls, streamId }) => calls.endStream(streamId),
);
