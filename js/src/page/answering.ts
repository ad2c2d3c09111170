// Asks the model for answers, one at a time in each conversation, and writes them into the state.
//
// An answer survives its page: the engine's journal keeps it, under the message's id, and the message
// keeps what was asked until the journal's session is deleted. A page that is opened goes on with the
// answers under way by asking again. Of several tabs only one has an answer; the others show what it
// saves, and take over when it is closed, or to stop the answer.

import {
  ContextLengthError,
  ModelReplacedError,
  SessionNotFoundError,
  type ChatCompletionChunk,
  type ChatCompletionMessageParam,
  type ChatCompletionRequestStreaming,
  type ChunkStream,
} from "../client";
import { unlessAborted } from "../client/request_options";
import type { ConversationDb } from "./conversation_db";
import * as list from "./conversations";
import { Draft } from "./draft";
import { errorText, replacedText } from "./format";
import type { ModelSession, Session } from "./model_session";
import { fitted, questionOn, shorter } from "./page_text";
import { samplingOf } from "./settings";
import type { Asked, Message, PageText, State } from "./state";
import type { Store } from "./store";
import { asOnlyTab } from "./tabs";

/** An answer, and whether this tab has just asked for it. */
interface Job {
  conversationId: string;
  message: Message;
  isNew: boolean;
}

export class Answering {
  private readonly stops = new Map<string, AbortController>(); // of answers under way
  private readonly known = new Set<string>(); // ids of answers that this tab has or waits for

  constructor(
    private readonly store: Store<State>,
    private readonly models: ModelSession,
    private readonly db: ConversationDb,
  ) {}

  send(conversationId: string, text: string, page: PageText | null = null): void {
    const messages = this.messages(conversationId);
    this.answer(conversationId, [...messages, question(text, page)]);
  }

  /** Replaces an answer, and what follows it, by a new one. */
  regenerate(conversationId: string, messageId: string): void {
    this.answer(conversationId, list.before(this.messages(conversationId), messageId));
  }

  /** Replaces a user's message, and all after it, by another one and its answer. */
  edit(conversationId: string, messageId: string, text: string): void {
    const messages = this.messages(conversationId);
    const edited = messages.find((message) => message.id === messageId);
    const before = list.before(messages, messageId);
    this.answer(conversationId, [...before, question(text, edited?.page ?? null)]);
  }

  stop(conversationId: string): void {
    this.stops.get(conversationId)?.abort();
    this.stops.delete(conversationId);
  }

  /** Goes on with a conversation's answers that no tab has, once their models are loaded. */
  reopen(conversationId: string): void {
    for (const message of this.messages(conversationId)) {
      if (!message.asked || this.known.has(message.id)) continue;
      void this.run({ conversationId, message, isNew: false });
    }
  }

  private answer(conversationId: string, before: Message[]): void {
    this.stop(conversationId);
    const settings = this.store.get("settings");
    const asked: Asked = {
      modelId: this.store.get("modelId"),
      systemPrompt: settings.systemPrompt,
      sampling: samplingOf(settings),
    };
    const message = { ...list.newMessage("assistant", ""), asked };
    const conversations = this.store.get("conversations");
    const messages = [...before, message];
    this.store.set("conversations", list.withMessages(conversations, conversationId, messages));
    void this.run({ conversationId, message, isNew: true });
  }

  private async run(job: Job): Promise<void> {
    const { conversationId, message } = job;
    const stop = new AbortController();
    if (list.isUnderWay(message)) this.stops.set(conversationId, stop);
    this.known.add(message.id);
    await asOnlyTab(message.id, stop.signal, (taken) =>
      this.act(job, stop, taken).catch(reportError),
    );
    this.known.delete(message.id);
  }

  private async act(job: Job, stop: AbortController, taken: AbortSignal): Promise<void> {
    const { conversationId, isNew } = job;
    if (!isNew && !stop.signal.aborted) {
      await this.db.written(); // this tab's own changes
      await this.db.reread(conversationId);
    }
    const draft = this.draft(job, stop.signal);
    const leave = () => {
      draft?.leave();
      stop.abort();
      void this.db.reread(conversationId);
    };
    if (taken.aborted) leave();
    else taken.addEventListener("abort", leave);
    if (draft?.isUnderWay) await this.finish(draft, isNew, stop);
    if (this.stops.get(conversationId) === stop) this.stops.delete(conversationId);
    if (draft && !taken.aborted) await this.forgetSession(draft);
  }

  /**
   * Continues the message as it is now: another tab may have written it. Returns nothing if that has
   * done all, or has deleted the message; after a stop there may still be a session to delete.
   */
  private draft(job: Job, stop: AbortSignal): Draft | undefined {
    const isOurs = job.isNew || stop.aborted;
    const message = this.current(job) ?? (isOurs ? job.message : undefined);
    return message?.asked && new Draft(this.store, job.conversationId, message, message.asked);
  }

  private async finish(draft: Draft, isNew: boolean, stop: AbortController): Promise<void> {
    if (stop.signal.aborted) return draft.end("stopped");
    stop.signal.addEventListener("abort", () => draft.end("stopped"));
    try {
      await this.stream(draft, isNew, stop);
    } catch (error) {
      const model = this.store.get("model");
      const by = model.phase === "replaced" ? model.by : "";
      draft.fail(error instanceof ModelReplacedError ? replacedText(by) : errorText(error));
    }
  }

  /** Streams until the answer ends or another model is chosen. */
  private async stream(draft: Draft, isNew: boolean, stop: AbortController): Promise<void> {
    const begun = await this.begin(draft, isNew, stop);
    if (begun === null) return draft.end("stopped");
    const { session, chunks } = begun;
    try {
      await read(chunks, draft);
    } catch (error) {
      this.models.check(session, error);
      throw error;
    }
  }

  /**
   * Returns null if no model is loaded for the answer. Loads the model again, once, if it turns out
   * that another tab's has taken its place.
   */
  private async begin(draft: Draft, isNew: boolean, stop: AbortController): Promise<Begun | null> {
    for (let isFirst = true; ; isFirst = false) {
      const loading = isNew ? this.models.ready() : this.models.expected(draft.asked.modelId);
      const session = await unlessAborted(loading, stop);
      if (session === null) return null;
      const leave = () => stop.abort();
      session.left.signal.addEventListener("abort", leave, { signal: draft.closed });
      try {
        draft.begin(session.modelId);
        return { session, chunks: await this.ask(session, draft, stop) };
      } catch (error) {
        this.models.check(session, error);
        if (!isFirst || !(error instanceof ModelReplacedError)) throw error;
      }
    }
  }

  /**
   * Asks for an answer, or attaches to it if the engine or its journal has it. Takes less and less of
   * web pages that do not fit into the model's context window.
   */
  private async ask(
    { loaded }: Session,
    draft: Draft,
    { signal }: AbortController,
  ): Promise<ChunkStream<ChatCompletionChunk>> {
    const engine = await loaded;
    const model = this.store.get("model");
    const contextTokens = model.phase === "ready" ? model.contextTokens : null;
    if (contextTokens !== null) this.changePages(draft, (page) => fitted(page, contextTokens));
    for (;;) {
      try {
        return await engine.chat.completions.create(this.request(draft), { signal });
      } catch (error) {
        if (!(error instanceof ContextLengthError) || !this.changePages(draft, shorter))
          throw error;
      }
    }
  }

  private request({
    asked,
    conversationId,
    message: { id },
  }: Draft): ChatCompletionRequestStreaming {
    return {
      messages: prompt(list.before(this.messages(conversationId), id), asked),
      ...asked.sampling,
      stream: true,
      stream_options: { include_usage: true },
      extra_body: { resumable: { enabled: true, sessionId: id }, return_progress: true },
    };
  }

  /** Changes the web pages before an answer; returns whether there is a change. */
  private changePages(
    { conversationId, message: { id } }: Draft,
    change: (page: PageText) => PageText,
  ): boolean {
    let isChanged = false;
    for (const message of list.before(this.messages(conversationId), id)) {
      const page = message.page && change(message.page);
      if (!page || page === message.page) continue;
      isChanged = true;
      const conversations = this.store.get("conversations");
      const changed = list.withMessage(conversations, conversationId, { ...message, page });
      this.store.set("conversations", changed);
    }
    return isChanged;
  }

  /** Deletes the session of an answer that has ended, and is kept here. */
  private async forgetSession(draft: Draft): Promise<void> {
    if (draft.hasSession) {
      await this.db.written();
      const engine = await this.models.whenLoaded();
      try {
        await engine.deleteResumableSession(draft.message.id);
      } catch (error) {
        if (!(error instanceof SessionNotFoundError)) return; // tried again by the next page
      }
    }
    draft.settle();
    await this.db.written();
  }

  private current({ conversationId, message: { id } }: Job): Message | undefined {
    return this.messages(conversationId).find((each) => each.id === id);
  }

  private messages(conversationId: string): Message[] {
    return list.find(this.store.get("conversations"), conversationId)?.messages ?? [];
  }
}

interface Begun {
  session: Session;
  chunks: ChunkStream<ChatCompletionChunk>;
}

async function read(chunks: ChunkStream<ChatCompletionChunk>, draft: Draft): Promise<void> {
  let finish: string | null | undefined;
  for await (const chunk of chunks) {
    draft.add(chunk);
    finish = chunk.choices[0]?.finish_reason ?? finish;
  }
  draft.end(finish === "length" ? "cut" : finish === "abort" ? "stopped" : "done");
}

function question(text: string, page: PageText | null): Message {
  const message = list.newMessage("user", text);
  return page ? { ...message, page } : message;
}

/** Leaves out empty answers. */
function prompt(before: Message[], { systemPrompt }: Asked): ChatCompletionMessageParam[] {
  const messages: ChatCompletionMessageParam[] = before
    .filter((message) => message.text !== "")
    .map(({ role, text, page }) => ({ role, content: page ? questionOn(page, text) : text }));
  if (systemPrompt.trim() === "") return messages;
  return [{ role: "system", content: systemPrompt }, ...messages];
}
