// The speed of an answer: the engine's own figures, or else those measured here.

import type { ChatCompletionChunk, CompletionUsage } from "../client";
import type { Stats } from "./state";

export class Measure {
  private begun = 0; // ms
  private first: number | undefined;
  private last = 0;
  private tokens = 0;
  private usage: CompletionUsage | undefined;

  /** isWhole: whether the answer is measured from its beginning. */
  constructor(private readonly isWhole: boolean) {}

  begin(): void {
    this.begun = performance.now();
  }

  add(chunk: ChatCompletionChunk): void {
    if (chunk.usage) this.usage = chunk.usage;
    if (!chunk.choices[0]?.delta.content) return;
    this.last = performance.now();
    this.first ??= this.last;
    this.tokens += 1;
  }

  /** Returns undefined if there was no token. */
  stats(): Stats | undefined {
    if (this.first === undefined) return undefined;
    const firstTokenSeconds = this.isWhole ? (this.first - this.begun) / 1000 : null;
    if (this.usage) {
      const { completion_tokens: tokens, extra } = this.usage;
      return { tokens, tokensPerSecond: extra.decode_tokens_per_s, firstTokenSeconds };
    }
    const seconds = (this.last - this.first) / 1000;
    const tokensPerSecond = seconds > 0 ? (this.tokens - 1) / seconds : 0;
    return { tokens: this.tokens, tokensPerSecond, firstTokenSeconds };
  }
}
