// What pages have asked a Service Worker that has not answered yet, in IndexedDB. Pages of WebLLM's
// client wait for ever for a worker that the browser has stopped; the next one answers them.

import { completed, requested } from "../../src/webllm/artifacts/browser/stores.js";

const NAME = "webllm-service-worker";
const TABLE = "requests"; // by [page, uuid, or kind of a setting]

export interface Request {
  kind: string;
  uuid: string;
  content?: unknown;
}

interface Noted {
  page: string; // the browser's id
  time: number; // ms since 1970
  numWorkers: number; // that have received it
  message: Request;
}

/** Without IndexedDB nothing is noted, which is no error. */
export class OpenRequests {
  private database: Promise<IDBDatabase | null> | undefined;

  /** Returns all that earlier workers have left, the oldest first. */
  async all(): Promise<Noted[]> {
    const found = await this.run("readonly", (table) => table.getAll());
    return ((found ?? []) as Noted[]).sort((one, other) => one.time - other.time);
  }

  /**
   * Notes a request until `delete`; of a setting the last one, until the page is gone. numWorkers: how
   * many have received it.
   */
  add(page: string, key: string, message: Request, numWorkers = 1): void {
    const time = performance.timeOrigin + performance.now();
    const noted: Noted = { page, time, numWorkers, message };
    void this.run("readwrite", (table) => table.put(noted, [page, key]));
  }

  delete(page: string, key: string): void {
    void this.run("readwrite", (table) => table.delete([page, key]));
  }

  forget(page: string): void {
    void this.run("readwrite", (table) => table.delete(IDBKeyRange.bound([page], [page, []])));
  }

  private async run(
    mode: IDBTransactionMode,
    ask: (table: IDBObjectStore) => IDBRequest,
  ): Promise<unknown> {
    try {
      const database = await (this.database ??= open());
      const transaction = database?.transaction(TABLE, mode, { durability: "relaxed" });
      if (!transaction) return undefined;
      const request = ask(transaction.objectStore(TABLE));
      await completed(transaction);
      return request.result;
    } catch {
      return undefined; // the user has cleared the site's data
    }
  }
}

async function open(): Promise<IDBDatabase | null> {
  if (!globalThis.indexedDB) return null;
  const opening = indexedDB.open(NAME, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(TABLE);
  const database = await requested(opening);
  database.onversionchange = () => database.close();
  return database;
}
