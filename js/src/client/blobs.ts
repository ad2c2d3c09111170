// The browser's stores for pages; src/webllm/artifacts/browser/backends.py has them for Python.

import type { AppConfigLike } from "./config";
import { configError } from "./errors";
import { completed, settled } from "./indexed_db";

/** Looking does not create a store, so that our worker can tell a first visit. */
export interface Blobs {
  get(key: string): Promise<Blob | undefined>;
  /** In bytes; 0 if it is not here. */
  size(key: string): Promise<number>;
  delete(key: string): Promise<void>;
  keys(prefix: string): Promise<string[]>;
}

/** Asks the browser not to clear this site's storage. Only a page can ask; it may be refused. */
export function askToKeep(appConfig?: AppConfigLike): void {
  if (appConfig?.cacheBackend === "none") return;
  void globalThis.navigator?.storage?.persist?.().catch(() => {});
}

const NAME = "webllm";
const FOLDER = "/webllm-models/";
const TABLE = "blobs";

/** undefined: the store is not available in this browser or on this page. */
const STORES: Record<string, () => Blobs | undefined> = {
  cache: () => ("caches" in globalThis ? inCacheApi() : undefined),
  indexeddb: () => ("indexedDB" in globalThis ? inIndexedDb() : undefined),
  opfs: () => (canWriteFiles() ? inOpfs() : undefined),
  none: () => undefined,
};
const KINDS: Record<string, string> = {
  cache: "Cache API",
  indexeddb: "IndexedDB",
  opfs: "file system for sites",
};

/** A configuration with another store, whichever spelling names the one that it has. */
export function withStore<Config extends AppConfigLike>(
  appConfig: Config,
  cacheBackend: NonNullable<AppConfigLike["cacheBackend"]>,
): Config {
  return { ...appConfig, cacheBackend, useIndexedDBCache: false, useIndexedDB: false };
}

/** The store that a configuration names, in any of WebLLM's spellings; null if it names none. */
export function namedStore(appConfig: AppConfigLike): string | null {
  const { cacheBackend, useIndexedDBCache, useIndexedDB } = appConfig;
  if (!useIndexedDBCache && !useIndexedDB) return cacheBackend ?? null;
  if (!cacheBackend || cacheBackend === "indexeddb") return "indexeddb";
  throw configError(
    `cacheBackend is "${cacheBackend}" and useIndexedDBCache true; give one of them`,
  );
}

/** undefined: models are not stored (the default, the Cache API, needs https). */
export function openBlobs(appConfig: AppConfigLike): Blobs | undefined {
  const named = namedStore(appConfig);
  const backend = named ?? "cache";
  const open = Object.hasOwn(STORES, backend) && STORES[backend];
  if (!open) {
    const known = Object.keys(STORES).join('", "');
    throw configError(`a browser has no cacheBackend "${backend}"; give one of "${known}"`);
  }
  const blobs = open();
  if (!blobs && named !== null && named !== "none") throw noStore(named);
  return blobs;
}

/** The error for a store that is not available; as `no_store` in browser/blobs.py. */
function noStore(backend: string): Error {
  const where = globalThis.isSecureContext
    ? 'in this browser; give "cache", "indexeddb" or "none"'
    : "here: browsers have it on https and localhost only; serve the site so, or give " +
      '"indexeddb" or "none"';
  return configError(`cacheBackend is "${backend}", but there is no ${KINDS[backend]} ${where}`);
}

function inCacheApi(): Blobs {
  const match = (key: string) => caches.match(FOLDER + key, { cacheName: NAME });
  return {
    get: async (key) => (await match(key))?.blob(),
    async size(key) {
      const response = await match(key);
      const length = response?.headers.get("Content-Length"); // Firefox would copy the bytes
      return length ? Number(length) : ((await response?.blob())?.size ?? 0);
    },
    async delete(key) {
      await (await caches.open(NAME)).delete(FOLDER + key);
    },
    async keys(prefix) {
      const requests = await (await caches.open(NAME)).keys();
      const keys = requests.map(({ url }) => new URL(url).pathname.replace(FOLDER, ""));
      return keys.filter((key) => key.startsWith(prefix));
    },
  };
}

function inIndexedDb(): Blobs {
  async function run<Result>(
    mode: IDBTransactionMode,
    ask: (table: IDBObjectStore) => IDBRequest<Result>,
  ): Promise<Result> {
    const opening = indexedDB.open(NAME, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(TABLE);
    const database = await settled(opening);
    try {
      const transaction = database.transaction(TABLE, mode);
      const request = ask(transaction.objectStore(TABLE));
      await completed(transaction);
      return request.result;
    } finally {
      database.close();
    }
  }
  const isThere = async () =>
    !indexedDB.databases || (await indexedDB.databases()).some(({ name }) => name === NAME);
  async function get(key: string): Promise<Blob | undefined> {
    if (!(await isThere())) return undefined;
    return run<Blob | undefined>("readonly", (table) => table.get(key));
  }
  return {
    get,
    size: async (key) => (await get(key))?.size ?? 0,
    async delete(key) {
      if (await isThere()) await run<undefined>("readwrite", (table) => table.delete(key));
    },
    async keys(prefix) {
      if (!(await isThere())) return [];
      const range = IDBKeyRange.bound(prefix, `${prefix}\uffff`);
      return (await run("readonly", (table) => table.getAllKeys(range))) as string[];
    },
  };
}

/** Safari before 26 can only read files. */
function canWriteFiles(): boolean {
  return "createWritable" in (globalThis.FileSystemFileHandle?.prototype ?? {});
}

function inOpfs(): Blobs {
  async function folder(): Promise<FileSystemDirectoryHandle> {
    return (await navigator.storage.getDirectory()).getDirectoryHandle(NAME);
  }
  const get = (key: string) =>
    ifFound(async () => (await (await folder()).getFileHandle(key)).getFile());
  return {
    get,
    size: async (key) => (await get(key))?.size ?? 0,
    delete: (key) => ifFound(async () => (await folder()).removeEntry(key)),
    async keys(prefix) {
      const keys: string[] = [];
      const entries = await ifFound(folder);
      for await (const key of entries?.keys() ?? []) if (key.startsWith(prefix)) keys.push(key);
      return keys;
    },
  };
}

async function ifFound<Result>(get: () => Promise<Result>): Promise<Result | undefined> {
  try {
    return await get();
  } catch (error) {
    if (error instanceof DOMException && error.name === "NotFoundError") return undefined;
    throw error;
  }
}
