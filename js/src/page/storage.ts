// The one door to what the browser keeps for this site. A browser may lack any of it, block it or
// lose it: what is asked for here is answered, and what has to be kept throws why it was not.

import { settled } from "../client/indexed_db";

/** Throws what the browser throws. */
export function readItem(key: string): string | null {
  return localStorage.getItem(key);
}

/** Throws what the browser throws. */
export function writeItem(key: string, text: string): void {
  localStorage.setItem(key, text);
}

/** With one table of records by their `id`. `onLost`: the database was closed by the browser. */
export async function openDatabase(
  name: string,
  table: string,
  onLost: () => void,
): Promise<IDBDatabase> {
  const opening = indexedDB.open(name, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(table, { keyPath: "id" });
  const database = await settled(opening);
  database.onclose = onLost;
  database.onversionchange = () => {
    database.close(); // so that a newer page can go on
    onLost();
  };
  return database;
}

/** Whether models can be kept in the Cache API. To look makes no cache. */
export async function hasCaches(): Promise<boolean> {
  try {
    await caches.has("webllm");
    return true;
  } catch {
    return false; // not on pages without TLS, nor where the user blocks it
  }
}

/** How much more the browser keeps for this site; null where it does not say. */
export async function freeBytes(): Promise<number | null> {
  try {
    const { quota, usage } = await navigator.storage.estimate();
    return quota === undefined ? null : quota - (usage ?? 0);
  } catch {
    return null;
  }
}

/** Why something is not kept, for people. */
export function whyNotKept(error: unknown): string {
  switch (error instanceof Error ? error.name : "") {
    case "SecurityError":
    case "ReferenceError": // there is no such storage at all
    case "TypeError":
      return "the browser blocks storage for this site";
    case "QuotaExceededError":
      return "the browser has no more room for this site";
    case "VersionError":
      return "a newer version of this page has changed them";
  }
  return "the storage of this browser failed";
}
