// Conversations in IndexedDB, one record each. Only changed records are written. What another tab
// writes is read here too.

import { completed, requested } from "../../../src/webllm/artifacts/browser/stores.js";
import { isAnswering } from "./conversations";
import { conversationOf } from "./kept_conversation";
import type { Conversation } from "./state";
import { openDatabase } from "./storage";
import type { OtherTabs } from "./tabs";

const NAME = "webllm-chat";
const TABLE = "conversations";
const DELAY_MS = 400;

export interface Kept {
  conversations: Conversation[]; // the last changed first
  numUnreadable: number; // records that stay as they are
}

export class ConversationDb {
  private db: IDBDatabase | undefined;
  private opening: Promise<IDBDatabase> | undefined;
  private readonly saved = new Map<string, Conversation>();
  private readonly deleted = new Set<string>(); // here, and not yet in the database
  private latest: Conversation[] = [];
  private timer: number | undefined;
  private readonly writing = new Set<Promise<void>>();

  /**
   * `report` gets the error that keeps something from being saved, and null once all is saved.
   * `onRead` gets what another tab has written; null if it has deleted the conversation.
   */
  constructor(
    private readonly tabs: OtherTabs,
    private readonly report: (error: unknown) => void,
    private readonly onRead: (id: string, conversation: Conversation | null) => void,
  ) {
    tabs.hear((news) => {
      if (news.kind !== "kept" || this.isUnsaved(news.conversationId)) return;
      void this.reread(news.conversationId);
    });
    // Browsers may drop what a page writes as it is left, so the most is written before.
    for (const event of ["beforeunload", "pagehide"]) addEventListener(event, () => this.write());
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.write(); // phones end hidden pages without a word
    });
  }

  /** Throws what the browser throws. */
  async read(): Promise<Kept> {
    const records = await this.records();
    const read = records.map(conversationOf).filter((each) => each !== null);
    for (const each of read) {
      if (!this.saved.has(each.id)) this.saved.set(each.id, each); // else it is here already
    }
    read.sort((one, other) => other.changedAt - one.changedAt);
    return { conversations: read, numUnreadable: records.length - read.length };
  }

  /** Reads a conversation again, and gives up changes that are not saved. */
  async reread(id: string): Promise<void> {
    const before = this.latest.find((each) => each.id === id);
    if (before) this.saved.set(id, before);
    try {
      const db = await this.open();
      const record: unknown = await requested(db.transaction(TABLE).objectStore(TABLE).get(id));
      if (this.isUnsaved(id)) return; // changed meanwhile
      const conversation = record === undefined ? null : conversationOf(record);
      if (conversation) this.take(conversation);
      else if (record !== undefined)
        return; // of another version
      else this.forget(id);
      this.onRead(id, conversation);
    } catch {
      // what is here stays
    }
  }

  /** Waits until what can be saved is saved. */
  async written(): Promise<void> {
    await Promise.resolve(); // the store tells of changes after this turn
    this.write();
    await Promise.allSettled(this.writing);
  }

  /** Saves at once; while an answer streams, at most every 400 ms. */
  save(conversations: Conversation[]): void {
    const kept = new Set(conversations.map((each) => each.id));
    for (const { id } of this.latest) if (!kept.has(id)) this.deleted.add(id);
    this.latest = conversations;
    if (!conversations.some(isAnswering)) this.write();
    else if (this.timer === undefined) this.writeAndWait();
  }

  /** Throws what the browser throws. Waits while another page upgrades the database. */
  open(): Promise<IDBDatabase> {
    const forget = () => (this.db = this.opening = undefined);
    this.opening ??= openDatabase(NAME, TABLE, forget).then((db) => (this.db = db));
    this.opening.catch(forget);
    return this.opening;
  }

  /** All records; null for each that the browser cannot read. */
  private async records(): Promise<unknown[]> {
    const db = await this.open();
    const table = () => db.transaction(TABLE).objectStore(TABLE);
    try {
      return await requested(table().getAll());
    } catch {
      const keys = await requested(table().getAllKeys());
      const get = async (key: IDBValidKey) => requested(table().get(key));
      return Promise.all(keys.map((key) => get(key).catch(() => null)));
    }
  }

  private writeAndWait(): void {
    this.write();
    this.timer = window.setTimeout(() => {
      this.timer = undefined;
      if (this.latest.some(isAnswering) && this.changed().length > 0) this.writeAndWait();
    }, DELAY_MS);
  }

  private changed(): Conversation[] {
    return this.latest.filter((each) => this.saved.get(each.id) !== each);
  }

  private write(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    const changed = this.changed();
    if (changed.length + this.deleted.size === 0) return;
    if (!this.db) return void this.open().then(() => this.write(), this.report);
    for (const id of this.deleted) this.delete(this.db, id);
    for (const each of changed) this.put(this.db, each);
  }

  private put(db: IDBDatabase, conversation: Conversation): void {
    const { id } = conversation;
    this.saved.set(id, conversation);
    this.change(db, id, (table) => table.put(conversation)).catch((error: unknown) => {
      if (this.saved.get(id) === conversation) this.saved.delete(id);
      this.report(error);
    });
  }

  private delete(db: IDBDatabase, id: string): void {
    this.saved.delete(id);
    this.deleted.delete(id);
    this.change(db, id, (table) => table.delete(id)).catch((error: unknown) => {
      this.deleted.add(id);
      this.report(error);
    });
  }

  private isUnsaved(id: string): boolean {
    const here = this.latest.find((each) => each.id === id);
    return this.deleted.has(id) || (here !== undefined && this.saved.get(id) !== here);
  }

  /** Another tab has written a conversation. */
  private take(conversation: Conversation): void {
    const { id } = conversation;
    this.saved.set(id, conversation);
    this.latest = this.latest.map((each) => (each.id === id ? conversation : each));
  }

  /** Another tab has deleted a conversation. */
  private forget(id: string): void {
    this.saved.delete(id);
    this.latest = this.latest.filter((each) => each.id !== id);
  }

  private change(db: IDBDatabase, id: string, act: (table: IDBObjectStore) => void): Promise<void> {
    const change = this.transact(db, id, act);
    this.writing.add(change);
    const forget = () => void this.writing.delete(change);
    change.then(forget, forget);
    return change;
  }

  /** One transaction per record, so that one that does not fit does not stop the others. */
  private async transact(
    db: IDBDatabase,
    id: string,
    act: (table: IDBObjectStore) => void,
  ): Promise<void> {
    const transaction = db.transaction(TABLE, "readwrite");
    act(transaction.objectStore(TABLE));
    transaction.commit(); // the page may be left before it would be by itself
    await completed(transaction);
    this.tabs.tell({ kind: "kept", conversationId: id });
    const isAllKept = this.latest.every((each) => this.saved.get(each.id) === each);
    if (isAllKept && this.deleted.size === 0) this.report(null);
  }
}
