// Messages to the background worker of a Chrome extension, by a port of chrome.runtime: from the
// extension's own pages, and from web pages and other extensions that its manifest lists.

import { HomeError, Listeners } from "./home_links.js";

const PORT_NAME = "web_llm_service_worker"; // WebLLM's

/** @typedef {import("../../../js/src/chrome").Port} Port */
/** @typedef {import("./home_links.js").Link} Link */

/** @implements {Link} */
export class ExtensionLink extends Listeners {
  needsCalls = true;
  mayWait; // for the user's consent
  #isConnected = true;
  /** @type {Port} */
  port;
  isStopped = false;

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
    this.mayWait = extensionId !== undefined;
    const info = { name: PORT_NAME };
    this.port = extensionId ? runtime.connect(extensionId, info) : runtime.connect(info);
    this.port.onMessage.addListener((data) => this.onMessage(data));
    this.port.onDisconnect.addListener(() => {
      this.#isConnected = false;
      const { message } = runtime.lastError ?? {};
      this.isStopped = message === undefined;
      this.onLost(message ?? "the browser has stopped the extension's background worker");
    });
  }

  post(/** @type {object} */ message) {
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
  #stay(/** @type {{ uuid: unknown, content: { ms: number } }} */ { uuid, content }) {
    setTimeout(() => this.postMessage({ kind: "heartbeat", uuid }), content.ms);
  }

  #close(/** @type {string} */ detail) {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.dispatchEvent(new CustomEvent("close", { detail }));
  }
}
