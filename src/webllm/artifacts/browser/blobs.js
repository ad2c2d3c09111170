// The browser's stores: Blobs by key, in each kind of store.

const NAME = "webllm"; // of our cache, database or folder in the site's storage
/** @type {string} */
export const UNSTORED =
  'load the model without storing it: cacheBackend "none" (in Python, cache_backend)';

/** An error that Python and pages throw as their class `name`. */
export class StoreError extends Error {
  /**
   * @param {"ArtifactError" | "ConfigError" | "IntegrityError" | "ModelNotFoundError" |
   *   "StorageFullError"} name
   * @param {string} message
   */
  constructor(name, message) {
    super(message);
    this.name = name;
  }
}

/**
 * Returns the StoreError for any error of a store.
 * @param {unknown} error
 * @param {string} [unstored] how to do without the store
 */
export function storeError(error, unstored = UNSTORED) {
  if (error instanceof StoreError) return error;
  const reason = error instanceof Error ? error.name : String(error);
  if (reason === "QuotaExceededError") {
    const wayOut = `delete a model, choose a smaller one, or ${unstored}`;
    const message = `the browser's storage for this site is full; ${wayOut}`;
    return new StoreError("StorageFullError", message);
  }
  if (reason === "SecurityError") {
    const message = `the browser lets this site store nothing; allow it to, or ${unstored}`;
    return new StoreError("StorageFullError", message);
  }
  const message = `the browser's store failed (${reason}); try again, or ${unstored}`;
  return new StoreError("ArtifactError", message);
}

/**
 * A key has letters, digits, "-" and ".". Only `put` creates the store; it replaces in one step.
 * @typedef {object} Blobs
 * @property {boolean} isKept whether it outlives the page
 * @property {() => Promise<boolean>} exists whether the site has this store
 * @property {(key: string) => Promise<Blob | undefined>} get
 * @property {(key: string, blob: Blob) => Promise<void>} put
 * @property {(key: string) => Promise<void>} delete
 * @property {(prefix: string) => Promise<string[]>} keys
 */

/** @type {Record<string, { what: string, isHere: () => boolean, open: () => Blobs }>} */
const KINDS = {
  cache: { what: "Cache API", isHere: hasCacheApi, open: inCacheApi },
  indexeddb: { what: "IndexedDB", isHere: () => "indexedDB" in globalThis, open: inIndexedDb },
  opfs: { what: "file system for sites", isHere: canWriteFiles, open: inOpfs },
  none: { what: "memory", isHere: () => true, open: inMemory },
};
// Pages without https have neither of the first two, extensions no Cache API.
const DEFAULTS = ["cache", "opfs", "indexeddb", "none"];

/**
 * Opens a kind of store; by default the first of DEFAULTS that this page has. Throws ConfigError for
 * a kind that it lacks.
 * @param {string | null} [kind]
 */
export function openBlobs(kind) {
  const chosen = kind ?? DEFAULTS.find((each) => KINDS[each]?.isHere()) ?? "none";
  const found = Object.hasOwn(KINDS, chosen) ? KINDS[chosen] : undefined;
  if (found?.isHere()) return guarded(found.open());
  const known = Object.keys(KINDS).join('", "');
  const message = !found
    ? `a browser has no cacheBackend "${chosen}"; give one of "${known}"`
    : `cacheBackend is "${chosen}", but there is no ${found.what} ` +
      (globalThis.isSecureContext
        ? 'in this browser; give "cache", "indexeddb" or "none"'
        : "here: browsers have it on https and localhost only; serve the site so, or give " +
          '"indexeddb" or "none"');
  throw new StoreError("ConfigError", message);
}

/** Returns whether this site has stored a model before, in any of the stores. */
export async function isAnythingStored() {
  const looks = Object.values(KINDS).map(async ({ open }) => open().exists());
  const found = await Promise.allSettled(looks); // some browsers lack some
  return found.some((each) => each.status === "fulfilled" && each.value);
}

/**
 * Asks the browser not to evict this site's storage; it may refuse. Only a page can ask. The browser
 * may ask the user, so callers do not wait for the answer.
 */
export async function askToKeep() {
  try {
    await globalThis.navigator?.storage?.persist?.();
  } catch {
    // as refused
  }
}

/**
 * Returns the same store, whose failures are StoreErrors.
 * @type {(blobs: Blobs) => Blobs}
 */
function guarded({ isKept, ...methods }) {
  const guard =
    (/** @type {(...given: any[]) => Promise<any>} */ method) =>
    (/** @type {any[]} */ ...given) =>
      method(...given).catch((error) => {
        throw storeError(error);
      });
  const entries = Object.entries(methods).map(([name, method]) => [name, guard(method)]);
  return { isKept, ...Object.fromEntries(entries) };
}

/** It refuses the addresses of an extension. */
function hasCacheApi() {
  return "caches" in globalThis && globalThis.location?.protocol !== "chrome-extension:";
}

/** @returns {Blobs} */
function inMemory() {
  /** @type {Map<string, Blob>} */
  const blobs = new Map();
  return {
    isKept: false,
    exists: async () => false,
    get: async (key) => blobs.get(key),
    put: async (key, blob) => void blobs.set(key, blob),
    delete: async (key) => void blobs.delete(key),
    keys: async (prefix) => [...blobs.keys()].filter((key) => key.startsWith(prefix)),
  };
}

/** @returns {Blobs} */
function inCacheApi() {
  const folder = "/webllm-models/"; // keys are URLs, which are never fetched
  const exists = async () => caches.has(NAME);
  return {
    isKept: true,
    exists,
    get: async (key) => (await caches.match(folder + key, { cacheName: NAME }))?.blob(),
    put: async (key, blob) => (await caches.open(NAME)).put(folder + key, new Response(blob)),
    async delete(key) {
      if (await exists()) await (await caches.open(NAME)).delete(folder + key);
    },
    async keys(prefix) {
      const requests = (await exists()) ? await (await caches.open(NAME)).keys() : [];
      const keys = requests.map(({ url }) => new URL(url).pathname.slice(folder.length));
      return keys.filter((key) => key.startsWith(prefix));
    },
  };
}

/**
 * The database is open during calls only, so that it can be deleted.
 * @returns {Blobs}
 */
function inIndexedDb() {
  const table = "blobs";
  /**
   * @template Result
   * @param {IDBTransactionMode} mode
   * @param {(table: IDBObjectStore) => IDBRequest<Result>} ask
   */
  async function run(mode, ask) {
    const opening = indexedDB.open(NAME, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(table);
    const database = await requested(opening);
    try {
      const transaction = database.transaction(table, mode);
      const request = ask(transaction.objectStore(table));
      await completed(transaction);
      return request.result;
    } finally {
      database.close();
    }
  }
  const exists = async () =>
    !indexedDB.databases || (await indexedDB.databases()).some(({ name }) => name === NAME);
  return {
    isKept: true,
    exists,
    get: async (key) => ((await exists()) ? run("readonly", (blobs) => blobs.get(key)) : undefined),
    async put(key, blob) {
      await run("readwrite", (blobs) => blobs.put(blob, key));
    },
    async delete(key) {
      if (await exists()) await run("readwrite", (blobs) => blobs.delete(key));
    },
    async keys(prefix) {
      if (!(await exists())) return [];
      const range = IDBKeyRange.bound(prefix, `${prefix}\uffff`);
      return (await run("readonly", (blobs) => blobs.getAllKeys(range))).map(String);
    },
  };
}

/**
 * Returns the result of a request to IndexedDB. Throws what the browser throws.
 * @template Result
 * @param {IDBRequest<Result>} request
 * @returns {Promise<Result>}
 */
export function requested(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("IndexedDB failed"));
  });
}

/**
 * Resolves when a transaction of IndexedDB is complete. Throws what the browser throws.
 * @param {IDBTransaction} transaction
 * @returns {Promise<void>}
 */
export function completed(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error ?? new Error("IndexedDB failed"));
  });
}

/** Safari before 26 can only read files. */
function canWriteFiles() {
  return "createWritable" in (globalThis.FileSystemFileHandle?.prototype ?? {});
}

/**
 * A file becomes visible when its writer is closed.
 * @returns {Blobs}
 */
function inOpfs() {
  const folder = async (create = false) =>
    (await navigator.storage.getDirectory()).getDirectoryHandle(NAME, { create });
  return {
    isKept: true,
    exists: async () => (await ifFound(folder)) !== undefined,
    get: (key) => ifFound(async () => (await (await folder()).getFileHandle(key)).getFile()),
    async put(key, blob) {
      const handle = await (await folder(true)).getFileHandle(key, { create: true });
      const writable = await handle.createWritable();
      try {
        await writable.write(blob);
        await writable.close();
      } catch (error) {
        await writable.abort().catch(() => {}); // it may be closed by the failure
        const { size } = await handle.getFile().catch(() => blob);
        if (size === 0) await (await folder()).removeEntry(key).catch(() => {});
        throw error;
      }
    },
    delete: (key) => ifFound(async () => (await folder()).removeEntry(key)),
    async keys(prefix) {
      const keys = [];
      const entries = (await ifFound(folder))?.keys() ?? [];
      for await (const key of entries) if (key.startsWith(prefix)) keys.push(key);
      return keys;
    },
  };
}

/**
 * Returns undefined for what is not found.
 * @template Result
 * @param {() => Promise<Result>} get
 */
async function ifFound(get) {
  try {
    return await get();
  } catch (error) {
    if (error instanceof DOMException && error.name === "NotFoundError") return undefined;
    throw error;
  }
}
