// Locks over all tabs and workers of a site.

import { storeError } from "./blobs.js";

/**
 * A lock over all tabs and workers of a site. It is always granted where there are none (on pages
 * without https), and without a name.
 */
export class Lock {
  #abort = new AbortController();
  #resolve = () => {};
  /** @type {Promise<unknown> | undefined} */
  #request;

  /**
   * If `ifFree`, `granted` is false at once where another holds the lock.
   * @param {string | undefined} name @param {boolean} ifFree
   * @param {string} [unstored] how to do without the store, for errors
   */
  constructor(name, ifFree, unstored) {
    /** @type {Promise<void>} */
    const released = new Promise((resolve) => (this.#resolve = resolve));
    const how = ifFree ? { ifAvailable: true } : { signal: this.#abort.signal };
    /** @type {Promise<boolean>} */
    this.granted = new Promise((resolve, reject) => {
      const { locks } = globalThis.navigator;
      if (!locks || name === undefined) return resolve(true);
      const take = (/** @type {unknown} */ lock) => {
        resolve(lock !== null);
        return lock ? released : undefined;
      };
      const fail = (/** @type {unknown} */ error) => reject(storeError(error, unstored));
      this.#request = locks.request(name, how, take).catch(fail);
    });
    this.granted.catch(() => {}); // nobody may be waiting any more
  }

  /** Releases it, or ends waiting for it. */
  async release() {
    this.#abort.abort();
    this.#resolve();
    await this.#request;
  }
}

/**
 * Returns whether a tab or worker of this site holds a lock; false where there are none.
 * @param {string} name
 */
export async function isHeld(name) {
  const { held } = (await globalThis.navigator.locks?.query()) ?? {};
  return held?.some((each) => each.name === name) ?? false;
}
