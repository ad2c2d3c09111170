// The answer being written. Once it has ended, later changes are ignored.

import type { ChatCompletionChunk } from "../client";
import * as list from "./conversations";
import { Measure } from "./measure";
import type { Asked, Message, MessageState, State } from "./state";
import type { Store } from "./store";

const LONG_PROMPT = 256; // tokens to read; shorter ones are read at once

type PromptProgress = NonNullable<ChatCompletionChunk["prompt_progress"]>;

export class Draft {
  private readonly measure: Measure;
  private readonly closing = new AbortController();
  private readonly shown: string; // of an answer that is read again, from its beginning
  private received = "";

  constructor(
    private readonly store: Store<State>,
    readonly conversationId: string,
    public message: Message,
    public asked: Asked,
  ) {
    this.shown = message.text;
    this.measure = new Measure(message.state === "waiting");
    this.hasSession = message.state !== "waiting";
  }

  /** Whether the engine may have been asked for it. */
  hasSession: boolean;

  get isUnderWay(): boolean {
    return list.isUnderWay(this.message);
  }

  /** Aborts once the answer has ended. */
  get closed(): AbortSignal {
    return this.closing.signal;
  }

  begin(modelId: string): void {
    this.measure.begin();
    this.hasSession = true;
    this.asked = { ...this.asked, modelId };
    const isCatchingUp = this.shown !== "";
    this.change({ state: "streaming", asked: this.asked, isCatchingUp });
  }

  add(chunk: ChatCompletionChunk): void {
    this.measure.add(chunk);
    if (chunk.prompt_progress) this.showProgress(chunk.prompt_progress);
    const piece = chunk.choices[0]?.delta.content ?? "";
    if (!piece) return;
    this.received += piece;
    if (this.shown.startsWith(this.received)) return;
    this.change({ text: this.received, isCatchingUp: false });
  }

  end(state: MessageState): void {
    const stats = this.measure.stats();
    if (state !== "stopped") this.change({ text: this.received });
    this.change(stats ? { state, stats } : { state });
    this.closing.abort();
  }

  fail(error: string): void {
    this.change({ state: "failed", error });
    this.closing.abort();
  }

  /** Leaves the answer to another tab. */
  leave(): void {
    this.closing.abort();
  }

  /** Forgets what was asked, as the journal no longer has the answer. */
  settle(): void {
    const { asked: _, percentRead: __, isCatchingUp: ___, ...message } = this.message;
    this.put(message);
  }

  private showProgress({ total, cache, processed }: PromptProgress): void {
    const percentRead = Math.floor((100 * (processed - cache)) / (total - cache));
    if (total - cache >= LONG_PROMPT) this.change({ percentRead });
  }

  private change(fields: Partial<Message>): void {
    if (!this.closed.aborted) this.put({ ...this.message, ...fields });
  }

  private put(message: Message): void {
    this.message = message;
    const conversations = this.store.get("conversations");
    const changed = list.withMessage(conversations, this.conversationId, message);
    this.store.set("conversations", changed);
  }
}
