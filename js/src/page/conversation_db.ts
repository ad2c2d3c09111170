// Conversations in IndexedDB, one record each; what is written is what has changed.

import { isAnswering } from "./conversations";
import type { Conversation, Message } from "./state";

const NAME = "webllm-chat";
const TABLE = "conversations";
const DELAY_MS = 400;

export class ConversationDb {
  private saved: Conversation[] = [];
  private latest: Conversation[] = [];
  private timer: number | undefined;

  private constructor(private readonly db: IDBDatabase) {
    addEventListener("pagehide", () => this.write());
  }

  static async open(): Promise<ConversationDb> {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(TABLE, { keyPath: "id" });
    return new ConversationDb(await settled(request));
  }

  /** The last changed first. An answer that was under way when the page was left has stopped. */
  async all(): Promise<Conversation[]> {
    const table = this.db.transaction(TABLE).objectStore(TABLE);
    const found = (await settled(table.getAll())) as Conversation[];
    this.saved = found.sort((one, other) => other.changedAt - one.changedAt);
    return found.map((each) => (isAnswering(each) ? ended(each) : each));
  }

  /** At once; while an answer streams, every so often. */
  save(conversations: Conversation[]): void {
    this.latest = conversations;
    if (!conversations.some(isAnswering)) this.write();
    else this.timer ??= window.setTimeout(() => this.write(), DELAY_MS);
  }

  private write(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (this.latest === this.saved) return;
    const transaction = this.db.transaction(TABLE, "readwrite");
    const table = transaction.objectStore(TABLE);
    const kept = new Set(this.latest.map((each) => each.id));
    for (const { id } of this.saved) if (!kept.has(id)) table.delete(id);
    for (const each of this.latest) if (!this.saved.includes(each)) table.put(each);
    transaction.commit(); // the page may be left before it would be by itself
    this.saved = this.latest;
  }
}

function ended({ messages, ...others }: Conversation): Conversation {
  const stop = (message: Message) =>
    message === messages.at(-1) ? { ...message, state: "stopped" as const } : message;
  return { ...others, messages: messages.map(stop) };
}

function settled<Result>(request: IDBRequest<Result>): Promise<Result> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("IndexedDB failed"));
  });
}
