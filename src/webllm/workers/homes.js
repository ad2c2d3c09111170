// A stub, until the real one is merged.

/** @typedef {"auto" | "service-worker" | "shared-worker" | "tab"} Host */

export class Home extends EventTarget {
  /** "service-worker", "shared-worker" or "tab"; "" until `ready`. */
  host = "";
  missedHeartbeat = 0;
  /** @type {Promise<void>} */
  ready;

  /** @param {{ host?: Host, keepAliveMs?: number, root?: string | URL | undefined }} [options] */
  constructor({ host = "auto" } = {}) {
    super();
    const message = `no home of the kind ${host} can be had here`;
    this.ready = Promise.reject({ name: "NoServiceWorkerAPIError", message });
    this.ready.catch(() => {});
  }

  /** @param {unknown} message */
  postMessage(message) {
    structuredClone(message);
  }

  close() {}
}
