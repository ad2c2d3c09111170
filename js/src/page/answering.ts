// Asks the model for answers, one at a time in each conversation, and writes them into the state.

import type { ChatCompletionChunk, ChatCompletionMessageParam, ChunkStream } from "../client";
import * as list from "./conversations";
import { errorText } from "./format";
import { Measure } from "./measure";
import type { ModelSession, Session } from "./model_session";
import { requestFields, type Settings } from "./settings";
import type { Message, MessageState, State } from "./state";
import type { Store } from "./store";

export class Answering {
  private readonly stops = new Map<string, AbortController>();

  constructor(
    private readonly store: Store<State>,
    private readonly models: ModelSession,
  ) {}

  send(conversationId: string, text: string): void {
    const messages = this.messages(conversationId);
    void this.answer(conversationId, [...messages, list.newMessage("user", text)]);
  }

  /** Replaces an answer, and what follows it, by a new one. */
  regenerate(conversationId: string, messageId: string): void {
    void this.answer(conversationId, list.before(this.messages(conversationId), messageId));
  }

  /** Replaces a user's message, and all after it, by another one and its answer. */
  edit(conversationId: string, messageId: string, text: string): void {
    const before = list.before(this.messages(conversationId), messageId);
    void this.answer(conversationId, [...before, list.newMessage("user", text)]);
  }

  stop(conversationId: string): void {
    this.stops.get(conversationId)?.abort();
    this.stops.delete(conversationId);
  }

  private async answer(conversationId: string, asked: Message[]): Promise<void> {
    this.stop(conversationId);
    const draft = new Draft(this.store, conversationId, list.newMessage("assistant", ""));
    const stop = new AbortController();
    this.stops.set(conversationId, stop);
    const conversations = this.store.get("conversations");
    const messages = [...asked, draft.message];
    this.store.set("conversations", list.withMessages(conversations, conversationId, messages));
    stop.signal.addEventListener("abort", () => draft.end("stopped"));
    try {
      const session = await this.models.ready();
      if (session === null) stop.abort();
      else await this.stream(session, draft, asked, stop);
    } catch (error) {
      draft.fail(error);
    }
    if (this.stops.get(conversationId) === stop) this.stops.delete(conversationId);
  }

  /** Streams until the answer ends or another model is chosen. */
  private async stream(
    session: Session,
    draft: Draft,
    asked: Message[],
    stop: AbortController,
  ): Promise<void> {
    if (stop.signal.aborted) return;
    const leave = () => stop.abort();
    session.left.signal.addEventListener("abort", leave);
    try {
      draft.begin();
      await read(await this.ask(session, asked), draft, stop.signal);
    } catch (error) {
      this.models.check(session, error);
      throw error;
    } finally {
      session.left.signal.removeEventListener("abort", leave);
    }
  }

  private async ask(
    { loaded }: Session,
    asked: Message[],
  ): Promise<ChunkStream<ChatCompletionChunk>> {
    const engine = await loaded;
    const settings = this.store.get("settings");
    return engine.chat.completions.create({
      messages: prompt(asked, settings),
      ...requestFields(settings),
      stream: true,
      stream_options: { include_usage: true },
    });
  }

  private messages(conversationId: string): Message[] {
    return list.find(this.store.get("conversations"), conversationId)?.messages ?? [];
  }
}

async function read(
  chunks: ChunkStream<ChatCompletionChunk>,
  draft: Draft,
  stop: AbortSignal,
): Promise<void> {
  const leave = () => void chunks.return();
  if (stop.aborted) leave();
  stop.addEventListener("abort", leave);
  let finish: string | null | undefined;
  for await (const chunk of chunks) {
    draft.add(chunk);
    finish = chunk.choices[0]?.finish_reason ?? finish;
  }
  draft.end(finish === "length" ? "cut" : finish === "abort" ? "stopped" : "done");
}

/** The answer being written. Once it has ended, later changes are ignored. */
class Draft {
  private readonly measure = new Measure();
  private isOpen = true;

  constructor(
    private readonly store: Store<State>,
    private readonly conversationId: string,
    public message: Message,
  ) {}

  begin(): void {
    this.measure.begin();
    this.change({ state: "streaming" });
  }

  add(chunk: ChatCompletionChunk): void {
    const piece = chunk.choices[0]?.delta.content ?? "";
    this.measure.add(chunk);
    if (piece) this.change({ text: this.message.text + piece });
  }

  end(state: MessageState): void {
    const stats = this.measure.stats();
    this.change(stats ? { state, stats } : { state });
    this.isOpen = false;
  }

  fail(error: unknown): void {
    this.change({ state: "failed", error: errorText(error) });
    this.isOpen = false;
  }

  private change(fields: Partial<Message>): void {
    if (!this.isOpen) return;
    this.message = { ...this.message, ...fields };
    const conversations = this.store.get("conversations");
    const changed = list.withMessage(conversations, this.conversationId, this.message);
    this.store.set("conversations", changed);
  }
}

/** Leaves out empty answers. */
function prompt(asked: Message[], { systemPrompt }: Settings): ChatCompletionMessageParam[] {
  const messages: ChatCompletionMessageParam[] = asked
    .filter((message) => message.text !== "")
    .map(({ role, text }) => ({ role, content: text }));
  if (systemPrompt.trim() === "") return messages;
  return [{ role: "system", content: systemPrompt }, ...messages];
}
