// An answer under way in the worker, pulled chunk by chunk.

import { newUuid, type Calls } from "./calls";

/** A consumer that leaves its loop, or calls `return()`, ends the answer in the worker at once. */
export class ChunkStream<Chunk> implements AsyncIterableIterator<Chunk> {
  private isOpen = true;
  private readonly pulls = new Set<string>();

  constructor(
    private readonly calls: Calls,
    private readonly streamId: string,
    private readonly selectedModelId: string | null,
  ) {}

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<Chunk, undefined>> {
    if (!this.isOpen) return END;
    try {
      const chunk = await this.pull();
      if (chunk !== undefined && chunk !== null) return { done: false, value: chunk as Chunk };
    } catch (error) {
      this.isOpen = false;
      throw error;
    }
    this.isOpen = false;
    return END;
  }

  async return(): Promise<IteratorResult<Chunk, undefined>> {
    if (this.isOpen) {
      this.isOpen = false;
      this.calls.endStream(this.streamId);
      for (const uuid of this.pulls) this.calls.giveUp(uuid);
    }
    return END;
  }

  private async pull(): Promise<unknown> {
    const uuid = newUuid();
    const content = { streamId: this.streamId, selectedModelId: this.selectedModelId };
    this.pulls.add(uuid);
    try {
      return await this.calls.call({ kind: "completionStreamNextChunk", uuid, content });
    } finally {
      this.pulls.delete(uuid);
    }
  }
}

const END = { done: true, value: undefined } as const;
