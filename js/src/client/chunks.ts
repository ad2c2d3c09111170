// The chunks of one answer, which the worker gives one by one.

import { newUuid } from "../../../src/webllm/workers/uuid.js";
import type { Calls } from "./calls";
import { unreadableAnswer } from "./errors";

/** Where a stream gets its chunks. */
export interface Chunks<Chunk> {
  /** Waits for the next chunk; undefined after the last one, and once the answer was ended. */
  pull(): Promise<Chunk | undefined>;
  /** Ends the answer in the worker at once, unless it has ended. */
  end(): void;
}

/** The chunks of an answer of one worker, which has begun it. Several pulls may wait at once. */
export class WorkerChunks<Chunk> implements Chunks<Chunk> {
  private isOpen = true;
  private readonly pulls = new Set<string>();

  constructor(
    private readonly calls: Calls,
    private readonly streamId: string,
    private readonly selectedModelId: string | null,
  ) {
    calls.beginStream(streamId);
  }

  async pull(): Promise<Chunk | undefined> {
    if (!this.isOpen) return undefined;
    const chunk = (await this.next()) ?? undefined;
    if (chunk === undefined) this.forget();
    else if (typeof chunk !== "object") {
      this.end();
      throw unreadableAnswer(`a chunk is an object, received a ${typeof chunk}`);
    }
    return chunk as Chunk | undefined;
  }

  end(): void {
    if (!this.isOpen) return;
    this.forget();
    this.calls.endStream(this.streamId);
    for (const uuid of this.pulls) this.calls.cancel(uuid);
  }

  private forget(): void {
    this.isOpen = false;
    this.calls.forgetStream(this.streamId);
  }

  private async next(): Promise<unknown> {
    const uuid = newUuid();
    const content = { streamId: this.streamId, selectedModelId: this.selectedModelId };
    this.pulls.add(uuid);
    try {
      return await this.calls.call("completionStreamNextChunk", content, { uuid });
    } catch (error) {
      this.forget();
      throw error;
    } finally {
      this.pulls.delete(uuid);
    }
  }
}
