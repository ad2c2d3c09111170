// Messages to the background worker of a Chrome extension, by a port of chrome.runtime: from the
// extension's own pages, and from web pages and other extensions that its manifest lists.

import { HomeError, Listeners } from "./home_links.js";

const PORT_NAME = "web_llm_service_worker"; // WebLLM's
const MAX_WORKERS = 5; // that may end, or not start, one after another before the first reply

/** @typedef {import("../../../js/src/chrome").Port} Port */
/** @typedef {import("./home_links.js").Link} Link */

/** @implements {Link} */
export class ExtensionLink extends Listeners {
  hint =
    "does its background script import webllm's extension_service_worker.js, and give the handler " +
    "the messages of each port?";
  needsCalls = true;
  mayWait = false; // for the user's consent the background says "wait"
  #isConnected = true;
  /** @type {() => Port} */
  #connect;
  /** @type {{ kind?: string, uuid?: unknown } | undefined} */
  #hello; // the first one
  #isGreeted = false;
  #numWorkers = 0;
  /** @type {Port} */
  port;

  /** @param {string} [extensionId] another extension's, or the one that a web page asks */
  constructor(extensionId) {
    super();
    const { runtime } = globalThis.chrome ?? {};
    if (!runtime?.connect) {
      throw new HomeError(
        "ServiceWorkerInitializationError",
        "this page can connect to no extension: make the engine in a page of the extension, or list " +
          "this page under externally_connectable in its manifest",
      );
    }
    this.name = `the extension ${extensionId ?? runtime.id ?? ""}`;
    const info = { name: PORT_NAME };
    this.#connect = () =>
      extensionId ? runtime.connect(extensionId, info) : runtime.connect(info);
    this.port = this.#open();
  }

  post(/** @type {{ kind?: string, uuid?: unknown }} */ message) {
    if (message.kind === "hello") this.#hello ??= message;
    try {
      this.port.postMessage(message);
    } catch (error) {
      if (this.#isConnected) throw error; // it cannot be posted
      this.onLost(String(error));
    }
  }

  close() {
    this.port.disconnect();
  }

  #open() {
    const port = this.#connect();
    this.#numWorkers += 1;
    port.onMessage.addListener((data) => {
      this.#isGreeted ||= data?.uuid === this.#hello?.uuid && data.kind !== "wait";
      this.onMessage(data);
    });
    port.onDisconnect.addListener(() => this.#lose(globalThis.chrome?.runtime?.lastError?.message));
    return port;
  }

  /**
   * Greets the next worker, if the browser stopped this one before it replied.
   * @param {string} [failure] why there is no worker
   */
  #lose(failure = "the browser has stopped the extension's background worker") {
    if (this.#hello && !this.#isGreeted && this.#numWorkers < MAX_WORKERS) {
      try {
        this.port = this.#open();
        this.port.postMessage(this.#hello);
        return this.onNext();
      } catch (error) {
        failure = String(error); // the extension was removed
      }
    }
    this.#isConnected = false;
    this.onLost(failure);
  }
}

/**
 * The other end of a port, in the extension: an object that Python listens and posts to. Events:
 * "message", and "close" once, with the reason.
 */
export class PortEndpoint extends EventTarget {
  #port;
  /** @type {unknown} */
  #from; // the client's id, if it names one
  #isClosed = false;

  /** @param {Port} port */
  constructor(port) {
    super();
    this.#port = port;
    port.onMessage.addListener((data) => this.#receive(data));
    port.onDisconnect.addListener(() => this.#close("its port was disconnected"));
  }

  /** @param {object} message */
  postMessage(message) {
    if (this.#isClosed) return;
    const to = this.#from;
    const { content } = /** @type {{ content?: any }} */ (message);
    if (content?.lock) content.lock = null; // the end of the port says more
    this.#port.postMessage(to === undefined ? message : { ...message, to });
  }

  #receive(/** @type {any} */ data) {
    const { from, worker: _, ...message } = data ?? {};
    this.#from = from;
    if (message.kind === "bye") return this.#close("its client has left");
    if (message.kind === "stay") return this.#stay(message);
    this.dispatchEvent(new MessageEvent("message", { data: message }));
  }

  /** Replies later, which keeps the background worker alive. */
  #stay(/** @type {{ uuid: unknown, content?: { ms: number } }} */ { uuid, content }) {
    setTimeout(() => this.postMessage({ kind: "heartbeat", uuid }), content?.ms);
  }

  #close(/** @type {string} */ detail) {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.dispatchEvent(new CustomEvent("close", { detail }));
  }
}
