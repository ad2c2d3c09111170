// The journal's byte strings in IndexedDB. The table `changed` has the time of each one's last change
// by name, `parts` has what was appended by [name, number]: an append writes its own bytes alone.

import { completed, requested, StoreError, storeError } from "./blobs.js";
import { isHeld, Lock } from "./locks.js";

const NAME = "webllm-journal"; // beside the database of blobs.js
const UNSTORED = "leave extra_body.resumable out";

/** @typedef {import("./windows.js").Bytes} Bytes */
/** @typedef {[name: string, part: number, data: Bytes]} Append */

/**
 * Throws StoreErrors. A string's writer holds its lock; where there are no locks, a second writer is
 * noticed by the numbers of its parts.
 */
export class JournalDatabase {
  /** @type {Promise<IDBDatabase> | undefined} */
  #opening;
  #patienceMs;

  /**
   * @param {number} [patienceMs] with the browser: it may wait for a transaction of a worker that was
   *   terminated, as WebKitGTK seems to at times
   */
  constructor(patienceMs = 30_000) {
    this.#patienceMs = patienceMs;
  }

  /**
   * Takes the lock of a string's owner, if nobody has it.
   * @param {string} name
   */
  lock(name) {
    return new Lock(lockName(name), true, UNSTORED);
  }

  /** @param {string} name */
  async isLocked(name) {
    try {
      return await isHeld(lockName(name));
    } catch (error) {
      throw storeError(error, UNSTORED);
    }
  }

  /**
   * Writes a new string, which is on the disk then; returns false if the name is taken.
   * @param {string} name @param {Bytes} data
   */
  async create(name, data) {
    let isNew = true;
    await this.#run("readwrite", "strict", (changed, parts) => {
      const adding = changed.add(now(), name);
      adding.onsuccess = () => parts.add(data, [name, 0]);
      ifTaken(adding, () => (isNew = false));
    });
    return isNew;
  }

  /**
   * Writes all in one transaction. Returns the error of each: "" if it is written, else "deleted" or
   * "taken".
   * @param {Append[]} appends
   */
  async append(appends) {
    const errors = appends.map(() => "");
    await this.#run("readwrite", "relaxed", (changed, parts) => {
      for (const [at, [name, part, data]] of appends.entries()) {
        const finding = changed.getKey(name);
        finding.onsuccess = () => {
          if (finding.result === undefined) return (errors[at] = "deleted");
          changed.put(now(), name);
          ifTaken(parts.add(data, [name, part]), () => (errors[at] = "taken"));
        };
      }
    });
    return errors;
  }

  /**
   * Removes what follows the first bytes of a string.
   * @param {string} name @param {number} numBytes
   */
  async cut(name, numBytes) {
    await this.#run("readwrite", "relaxed", (changed, parts) => {
      changed.put(now(), name);
      let left = numBytes;
      const reading = parts.openCursor(partsOf(name));
      reading.onsuccess = () => {
        const cursor = reading.result;
        if (!cursor) return;
        const data = /** @type {Bytes} */ (cursor.value);
        if (left === 0) cursor.delete();
        else if (left < data.length) cursor.update(data.slice(0, left));
        left -= Math.min(left, data.length);
        cursor.continue();
      };
    });
  }

  /**
   * Returns the number of the next part; undefined if there is no such string.
   * @param {string} name
   */
  async nextPart(name) {
    const [found, last] = await this.#run("readonly", "default", (changed, parts) => [
      changed.getKey(name),
      parts.openKeyCursor(partsOf(name), "prev"),
    ]);
    if (found.result === undefined) return undefined;
    const [, number] = /** @type {[string, number]} */ (last.result?.key ?? [name, -1]);
    return number + 1;
  }

  /**
   * Returns a whole string; undefined if there is none.
   * @param {string} name
   */
  async read(name) {
    const [found, all] = await this.#run("readonly", "default", (changed, parts) => [
      changed.getKey(name),
      parts.getAll(partsOf(name)),
    ]);
    if (found.result === undefined) return undefined;
    const whole = new Uint8Array(all.result.reduce((length, part) => length + part.length, 0));
    let end = 0;
    for (const part of all.result) {
      whole.set(part, end);
      end += part.length;
    }
    return whole;
  }

  /** @param {string} name */
  async delete(name) {
    await this.#run("readwrite", "relaxed", (changed, parts) => {
      changed.delete(name);
      parts.delete(partsOf(name));
    });
  }

  /**
   * Returns each string's name and the time of its last change: Unix time, seconds.
   * @returns {Promise<[string, number][]>}
   */
  async names() {
    const [names, times] = await this.#run("readonly", "default", (changed) => [
      changed.getAllKeys(),
      changed.getAll(),
    ]);
    return names.result.map((name, at) => [String(name), times.result[at]]);
  }

  /**
   * @template Result
   * @param {IDBTransactionMode} mode
   * @param {IDBTransactionDurability} durability "strict": it is on the disk when this returns
   * @param {(changed: IDBObjectStore, parts: IDBObjectStore) => Result} ask
   * @returns {Promise<Result>} of `ask`, once the transaction is complete
   */
  async #run(mode, durability, ask) {
    try {
      const database = await this.#inTime(this.#open());
      const transaction = database.transaction(["changed", "parts"], mode, { durability });
      const result = ask(transaction.objectStore("changed"), transaction.objectStore("parts"));
      await this.#inTime(completed(transaction));
      return result;
    } catch (error) {
      throw storeError(error, UNSTORED);
    }
  }

  /**
   * Gives the database up if the browser does not answer.
   * @template Result @param {Promise<Result>} answer @returns {Promise<Result>}
   */
  #inTime(answer) {
    return new Promise((resolve, reject) => {
      const giveUp = () => {
        void this.#opening?.then((database) => database.close());
        this.#opening = undefined;
        const waited = `the browser's store has not answered for ${this.#patienceMs / 1000} s`;
        reject(new StoreError("ArtifactError", `${waited}; restart the browser, or ${UNSTORED}`));
      };
      const timer = setTimeout(giveUp, this.#patienceMs);
      answer.then(resolve, reject).finally(() => clearTimeout(timer));
    });
  }

  /** Opens the database, or returns it if it is open: until somebody deletes it. */
  async #open() {
    if (!globalThis.indexedDB) {
      const message = `this browser has no IndexedDB to keep answers in; ${UNSTORED}`;
      throw new StoreError("ConfigError", message);
    }
    const close = () => (this.#opening = undefined);
    this.#opening ??= opened(close);
    this.#opening.catch(close);
    return this.#opening;
  }
}

/** @param {() => void} onClose */
async function opened(onClose) {
  const opening = indexedDB.open(NAME, 1);
  opening.onupgradeneeded = () => {
    opening.result.createObjectStore("changed");
    opening.result.createObjectStore("parts");
  };
  const database = await requested(opening);
  database.onclose = onClose;
  database.onversionchange = () => {
    onClose();
    database.close();
  };
  return database;
}

/** Unix time, seconds. */
function now() {
  return Date.now() / 1000;
}

/** @param {string} name */
function lockName(name) {
  return `webllm session ${name}`;
}

/** @param {string} name */
function partsOf(name) {
  return IDBKeyRange.bound([name], [name, []]);
}

/**
 * Has `then` called, and the transaction go on, if the key of a new record is taken.
 * @param {IDBRequest} adding @param {() => void} then
 */
function ifTaken(adding, then) {
  adding.onerror = (event) => {
    if (adding.error?.name !== "ConstraintError") return;
    event.preventDefault();
    then();
  };
}
