// All access to the browser's storage. A browser may lack any of it, block it or lose it: reading
// functions say so, and writing functions throw.

import { openBlobs, requested } from "../../../src/webllm/artifacts/browser/stores.js";
import { t } from "./texts";

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
  const database = await requested(opening);
  database.onclose = onLost;
  database.onversionchange = () => {
    database.close(); // so that a newer page can continue
    onLost();
  };
  return database;
}

/** Whether models can be stored. Creates no store. */
export async function canKeepModels(): Promise<boolean> {
  const blobs = openBlobs();
  try {
    await blobs.exists();
    return blobs.isKept;
  } catch {
    return false; // the user blocks it
  }
}

/** Storage left for this site; null if the browser does not say. */
export async function freeBytes(): Promise<number | null> {
  try {
    const { quota, usage } = await navigator.storage.estimate();
    return quota === undefined ? null : quota - (usage ?? 0);
  } catch {
    return null;
  }
}

/** The reason why something is not saved, for people. */
export function whyNotKept(error: unknown): string {
  switch (error instanceof Error ? error.name : "") {
    case "SecurityError":
    case "ReferenceError": // there is no such storage at all
    case "TypeError":
      return t("storageBlocked");
    case "QuotaExceededError":
      return t("storageFull");
    case "VersionError":
      return t("storageNewer");
  }
  return t("storageFailed");
}
