// How messages get to the worker with the site's engine, one class for each kind of worker.

/**
 * @typedef {object} Link
 * @property {string} name of the worker, for errors
 * @property {string} hint what to look at if it does not answer
 * @property {boolean} needsCalls whether the worker ends without events
 * @property {boolean} mayWait whether the first reply comes only after another tab is closed
 * @property {(message: object) => void} post
 * @property {(onMessage: OnMessage, onLost: OnLost, onNext?: () => void) => void} listen replaces earlier
 *   listeners; `onNext`: the worker has ended before its first reply, and the next one is greeted
 * @property {() => void} close
 */

/** An error that Python and pages throw as their class `name`. */
export class HomeError extends Error {
  /**
   * @param {"ConfigError" | "NoServiceWorkerAPIError" | "ServiceWorkerInitializationError"} name
   * @param {string} message
   */
  constructor(name, message) {
    super(message);
    this.name = name;
  }
}

/** @typedef {(data: any) => void} OnMessage */
/** @typedef {(reason: string) => void} OnLost */

/** What listens to a link, until another listens. */
export class Listeners {
  /** @type {OnMessage} */
  onMessage = () => {};
  /** @type {OnLost} */
  onLost = () => {};
  onNext = () => {};

  /** @param {OnMessage} onMessage @param {OnLost} onLost @param {() => void} [onNext] */
  listen(onMessage, onLost, onNext = () => {}) {
    this.onMessage = onMessage;
    this.onLost = onLost;
    this.onNext = onNext;
  }
}

/** @implements {Link} */
class ServiceWorkerLink extends Listeners {
  hint = "does its script import webllm's service_worker.js?";
  needsCalls = true;
  mayWait = false;
  #registration;
  #hear = (/** @type {MessageEvent} */ { data }) => this.onMessage(data);

  /** @param {ServiceWorkerRegistration} registration */
  constructor(registration) {
    super();
    this.#registration = registration;
    navigator.serviceWorker.addEventListener("message", this.#hear);
    navigator.serviceWorker.startMessages();
  }

  get name() {
    return `the Service Worker ${this.#registration.active?.scriptURL ?? ""}`;
  }

  /** Posts to the active worker, which may be a newer one than that of the last message. */
  post(/** @type {object} */ message) {
    const { active } = this.#registration;
    if (active) active.postMessage(message);
    else this.onLost("it was unregistered");
  }

  close() {
    navigator.serviceWorker.removeEventListener("message", this.#hear);
  }
}

/**
 * Waits for the page's Service Worker to be active. Throws a HomeError if there is none.
 * @param {number} [patienceMs] for the page to register one, and for its script to arrive
 */
export async function openServiceWorker(patienceMs = 30_000) {
  let registration = await currentRegistration();
  const coming = registration?.installing ?? registration?.waiting;
  if (!registration?.active && coming) await activated(coming);
  else if (!registration?.active) registration = undefined; // its script is on the way
  return new ServiceWorkerLink(registration ?? (await registered(patienceMs)));
}

/** The registration of this page, if there is one. */
async function currentRegistration() {
  try {
    const container = globalThis.navigator?.serviceWorker;
    if (container) return await container.getRegistration();
  } catch {} // in a page that may store nothing
  throw new HomeError(
    "NoServiceWorkerAPIError",
    "this page has no Service Workers: they need https or localhost, and are off in some private " +
      'windows and in sandboxed frames; leave host out, which is "auto"',
  );
}

/**
 * @param {number} patienceMs
 * @returns {Promise<ServiceWorkerRegistration>}
 */
function registered(patienceMs) {
  return new Promise((resolve, reject) => {
    const message =
      `no Service Worker was registered for ${location.href} in ${patienceMs / 1000} s: call ` +
      "navigator.serviceWorker.register, and serve its script without errors from this folder or " +
      "from one above it";
    const fail = () => reject(new HomeError("ServiceWorkerInitializationError", message));
    const timer = setTimeout(fail, patienceMs);
    void navigator.serviceWorker.ready.then((registration) => {
      clearTimeout(timer);
      resolve(registration);
    });
  });
}

/** @param {ServiceWorker} worker */
function activated(worker) {
  return new Promise((resolve, reject) => {
    const look = () => {
      if (worker.state === "activated" || worker.state === "activating") resolve(undefined);
      if (worker.state !== "redundant") return;
      const message = `the Service Worker ${worker.scriptURL} could not be installed; see the console`;
      reject(new HomeError("ServiceWorkerInitializationError", message));
    };
    worker.addEventListener("statechange", look);
    look();
  });
}

/** @implements {Link} */
export class SharedWorkerLink extends Listeners {
  hint = "is it webllm's, and does its console show an error?";
  needsCalls = false;
  mayWait = false;
  #worker;
  #pass;

  /** @param {string} root */
  constructor(root) {
    super();
    this.name = new URL("shared_worker.js", root).href;
    this.#worker = new SharedWorker(this.name, { type: "module" });
    this.#worker.onerror = () => this.onLost("its script could not be loaded");
    this.#worker.port.onmessage = ({ data }) => this.onMessage(data);
    this.#pass = new Presence();
  }

  post(/** @type {object} */ message) {
    this.#pass.whenHeld(message, (each) => this.#worker.port.postMessage(each));
  }

  close() {
    this.#worker.port.close();
    this.#pass.end();
  }
}

/**
 * A Web Worker that others of this origin hear on a channel.
 * @implements {Link}
 */
export class ChannelLink extends Listeners {
  hint = "is its worker webllm's, and does its console show an error?";
  needsCalls = false;
  mayWait = false;
  #channel;
  /** @type {object | undefined} */
  #hello; // until it is answered
  #pass = new Presence();

  /** @param {string} name of the worker, for errors @param {string} room the channel's name */
  constructor(name, room) {
    super();
    this.name = name;
    this.#channel = new BroadcastChannel(room);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
  }

  post(/** @type {{ kind?: string, from?: string }} */ message) {
    if (message.kind === "hello") this.#hello = message;
    this.#pass.whenHeld(message, (each) => this.#channel.postMessage(each));
  }

  close() {
    this.#channel.close();
    this.#pass.end();
  }

  #hear(/** @type {any} */ data) {
    if (data?.kind === "here") {
      if (this.#hello) this.post(this.#hello);
      return;
    }
    // Before the first reply another worker may take its place.
    const isLost = data?.kind === "failed" || (data?.kind === "ended" && !this.#hello);
    if (isLost) return this.onLost(data.reason);
    if (data?.to === undefined) return; // from another client to the worker
    if (data.kind === "return" && data.uuid === /** @type {any} */ (this.#hello)?.uuid) {
      this.#hello = undefined;
    }
    this.onMessage(data);
  }
}

/**
 * All tabs ask for one lock. The tab that has it makes the worker; when that tab is closed, the next
 * one makes another. Without Web Locks (on pages without https) each tab has its own.
 */
export class TabLink extends ChannelLink {
  mayWait = true; // for the election
  /** @type {Worker | undefined} */
  #worker;
  #left = new AbortController();

  /** @param {string} root */
  constructor(root) {
    const name = new URL("tab.js", root).href;
    const locks = globalThis.navigator?.locks;
    const room = locks ? `webllm ${name}` : `webllm ${Math.random()}`;
    super(name, room);
    const { signal } = this.#left;
    const elected = () => this.#serve(room);
    const served = locks ? locks.request(room, { signal }, elected) : elected();
    served.catch((error) => {
      if (!signal.aborted) this.onLost(String(error)); // no worker or no lock is allowed here
    });
  }

  close() {
    this.#left.abort();
    this.#worker?.terminate();
    super.close();
  }

  /** Makes the worker; settles when this connection is closed. */
  async #serve(/** @type {string} */ name) {
    if (this.#left.signal.aborted) return;
    const worker = (this.#worker = new Worker(this.name, { type: "module", name }));
    worker.onerror = (event) => {
      event.preventDefault();
      this.onLost(event.message || "its script could not be loaded");
    };
    await new Promise((resolve) => this.#left.signal.addEventListener("abort", resolve));
  }
}

/** A lock by which the worker notices that this page is gone. Messages wait until it is held. */
class Presence {
  #end = () => {};
  #isAsked = false;
  #isHeld = !globalThis.navigator?.locks; // nothing to wait for
  /** @type {(() => void)[]} */
  #waiting = [];

  /**
   * @param {{ from?: string }} message
   * @param {(message: object) => void} post
   */
  whenHeld(message, post) {
    if (this.#isHeld) return post(message);
    this.#waiting.push(() => post(message));
    if (!this.#isAsked) this.#hold(message.from ?? "");
  }

  end() {
    this.#waiting = [];
    this.#end();
  }

  /** @param {string} id */
  #hold(id) {
    this.#isAsked = true;
    /** @type {Promise<void>} */
    const ended = new Promise((resolve) => (this.#end = resolve));
    const hold = () => {
      this.#isHeld = true;
      for (const post of this.#waiting.splice(0)) post();
      return ended;
    };
    navigator.locks.request(presenceLock(id), hold).catch(hold); // no lock is allowed here
  }
}

/** The lock of a connection that is there. @param {string} id */
export function presenceLock(id) {
  return `webllm client ${id}`;
}
