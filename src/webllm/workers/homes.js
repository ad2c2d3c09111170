// Where the engine of a site runs, and a page's connection to it: one engine for all tabs, in
//
//     service-worker    the site's Service Worker, where that has a GPU
//     shared-worker     a SharedWorker, for a GPU in browsers whose Service Workers have none
//     tab               a Web Worker of one tab, which serves all tabs: only there are threads
//     extension         what the background worker of a Chrome extension leads to
//
// The wheel carries these plain modules for pages, as it does stores.js, and for Python, which knows
// this one as `webllm_homes`.

import { ExtensionLink, PortEndpoint } from "./extension_link.js";
import { HomeError, openServiceWorker, SharedWorkerLink, TabLink } from "./home_links.js";
import { newUuid } from "./uuid.js";

export * from "./home_links.js";
export { PortEndpoint };

const HELLO_MS = 30_000; // in which a worker's script has to answer
const AUTO_MS = 5_000; // then other workers are tried, before the Service Worker again
const STAY_MS = 10_000; // for which a Service Worker is asked to stay alive, again and again
const IDLE_MS = 1_000; // after which no call counts as under way
const MAX_SILENT_BEATS = 3;
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|microsoft basic render/i; // as in device/browser.py
const HOSTS = ["auto", "service-worker", "shared-worker", "tab", "extension", "offscreen"];
const CLOSED = "this connection was closed";
const UNANSWERED = new Set(["keepAlive", "setAppConfig", "setLogLevel", "abort", "bye"]);

/** @typedef {"service-worker" | "shared-worker" | "tab" | "extension" | "offscreen"} HostName */
/** @typedef {import("./home_links.js").Link} Link */
/** @typedef {{ kind?: unknown, uuid?: unknown, content?: unknown }} Message */
/** @typedef {{ gpu?: boolean, lock?: string | null, root?: string, host?: HostName }} Greeting */
/** @typedef {{ link: Link, greeting: Greeting }} Greeted */

/**
 * A connection to the engine of this site, used like a Worker. What is posted before it is connected
 * waits. Events: "message", and once "close" when the worker was lost; its `detail` is the reason, a
 * HomeError if there was no worker to be had.
 *
 * Several connections of one page share its worker. So each has an id, which its messages name as
 * `from` and the replies as `to`; and each message names the `worker` that it is for, because a
 * browser may replace a Service Worker between two messages. WebLLM's own messages name neither.
 */
export class Home extends EventTarget {
  /** @type {HostName | ""} which worker it is, once `ready` */
  host = "";
  /** Beats since the worker last said something. */
  missedHeartbeat = 0;
  /** @type {Promise<void>} Rejected with a HomeError if there is no such worker. */
  ready;

  #id = newUuid();
  #keepAliveMs;
  /** @type {Link | undefined} */
  #link;
  /** @type {string | undefined} */
  #worker; // the name of its lock
  /** @type {Message[]} */
  #early = [];
  #underWay = new Set(); // uuids of requests without a reply yet
  /** @type {AbortController | undefined} */
  #watch; // while requests are under way
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #ending; // of the watch
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #beats;
  /** @type {Map<Link, (why: string) => void>} */
  #greeting = new Map(); // ends the wait for a worker's first reply
  /** @type {string[]} */
  #failures = []; // why workers have no engine
  /** @type {unknown} */
  #hello; // uuid of the client's own
  #stayIds = new Set(); // uuids of each "stay" under way
  #isClosed = false;

  /**
   * @param {object} [options]
   * @param {HostName | "auto"} [options.host] forces one
   * @param {number} [options.keepAliveMs] between two beats; three without an answer are a loss
   * @param {string | URL | undefined} [options.root] the folder of tab.js and shared_worker.js; by
   *   default that of the Service Worker's script, or what its handler was given
   * @param {string | undefined} [options.extensionId] whose engine it is, for the host "extension";
   *   by default that of this page
   * @param {() => Link | Promise<Link>} [options.open] a way of the caller's own to the worker of the host
   */
  constructor({ host = "auto", keepAliveMs = 10_000, root, extensionId, open } = {}) {
    super();
    this.#keepAliveMs = keepAliveMs;
    if (!HOSTS.includes(host)) {
      const known = HOSTS.join(", ");
      throw new HomeError("ConfigError", `host is ${JSON.stringify(host)}; known are ${known}`);
    }
    // Browsers take longer times for none at all.
    if (!(keepAliveMs >= 1 && keepAliveMs < 2 ** 31)) {
      const range = "a number of milliseconds from 1 to 2147483647";
      throw new HomeError("ConfigError", `keepAliveMs is ${String(keepAliveMs)}; give ${range}`);
    }
    if (host === "extension") open ??= () => new ExtensionLink(extensionId);
    if (host === "service-worker") open ??= openServiceWorker;
    const connected = open ? this.#connectBy(host, open) : this.#connect(host, root);
    this.ready = connected.catch((error) => {
      if (error instanceof HomeError) throw error;
      throw new HomeError("ServiceWorkerInitializationError", String(error));
    });
    this.ready.catch((error) => this.#lose(error));
  }

  /** @param {Message} message plain data */
  postMessage(message) {
    if (this.#isClosed) return;
    if (this.#link) this.#post(this.#link, message);
    else this.#early.push(structuredClone(message)); // as it is now; throws as `postMessage` does
  }

  /** The port of an extension, if that is the way to the worker. */
  get port() {
    return this.#link instanceof ExtensionLink ? this.#link.port : undefined;
  }

  /** Leaves the worker, which serves others. There is no "close" event then. */
  close() {
    if (this.#isClosed) return;
    for (const link of [this.#link, ...this.#greeting.keys()]) if (link) this.#leave(link);
    this.#end();
  }

  /** @param {string} host @param {() => Link | Promise<Link>} open */
  async #connectBy(host, open) {
    const link = await open();
    this.#settle(/** @type {HostName} */ (host), link, await this.#greet(link));
  }

  /** @param {HostName | "auto"} wanted @param {string | URL | undefined} root */
  async #connect(wanted, root) {
    const hosts = wanted === "auto" ? hostsFor(await hasGpu()) : [wanted];
    const asks = hosts.includes("service-worker") || root === undefined;
    const opening = asks ? openServiceWorker().catch(() => null) : null;
    try {
      const soon = opening && (await Promise.race([opening, wait(AUTO_MS)]));
      if (await this.#connectOneOf(hosts, wanted, root, soon)) return;
      const late = soon ? null : await opening; // a slow network
      if (late && (await this.#connectOneOf(hosts, wanted, root, late))) return;
    } finally {
      void opening?.then((link) => {
        if (!link || link === this.#link) return;
        this.#leave(link);
        link.close();
      });
    }
    const folder = new URL(root ?? "./", location.href).href;
    throw new HomeError(
      "ServiceWorkerInitializationError",
      "no worker of this site has an engine: register a Service Worker with webllm's handler, or " +
        `serve webllm's files and name their folder as root (tried: ${folder})` +
        this.#failures.map((each) => `; ${each}`).join(""),
    );
  }

  /**
   * @param {HostName[]} hosts @param {HostName | "auto"} wanted @param {string | URL | undefined} root
   * @param {Link | null | void} worker the Service Worker
   * @returns {Promise<boolean>} whether one has an engine
   */
  async #connectOneOf(hosts, wanted, root, worker) {
    this.#failures = [];
    const site = worker ? await this.#find("service-worker", () => worker) : null;
    const folder = new URL(root ?? site?.greeting.root ?? "./", location.href).href;
    for (const host of hosts) {
      if (this.#isClosed) return false;
      const Opened = host === "tab" ? TabLink : SharedWorkerLink;
      const isHere = host === "service-worker";
      const found = isHere ? site : await this.#find(host, () => new Opened(folder));
      if (!found) continue;
      if (found.greeting.gpu || host === wanted || host === "tab") {
        this.#settle(host, found.link, found.greeting);
        return true;
      }
      if (!isHere) found.link.close();
    }
    if (!site || wanted !== "auto") return false;
    this.#settle("service-worker", site.link, site.greeting); // better slowly than not at all
    return true;
  }

  /** @param {HostName} host @param {() => Link} open @returns {Promise<Greeted | null>} */
  async #find(host, open) {
    try {
      const link = open();
      return { link, greeting: await this.#greet(link) };
    } catch (error) {
      this.#failures.push(error instanceof HomeError ? error.message : `${host}: ${String(error)}`);
      return null;
    }
  }

  /**
   * @param {Link} link
   * @returns {Promise<Greeting>}
   */
  #greet(link) {
    const uuid = newUuid();
    return new Promise((resolve, reject) => {
      const fail = (/** @type {string} */ why) => {
        clearTimeout(timer);
        this.#greeting.delete(link);
        link.close();
        reject(new HomeError("ServiceWorkerInitializationError", `${link.name}: ${why}`));
      };
      /** @type {ReturnType<typeof setTimeout> | undefined} */
      let timer;
      const expectReply = () => {
        clearTimeout(timer);
        if (link.mayWait) return;
        timer = setTimeout(fail, HELLO_MS, `it does not answer; ${link.hint}`);
      };
      const onReply = (/** @type {any} */ data) => {
        if (data?.to !== this.#id || data.uuid !== uuid) return;
        clearTimeout(timer);
        if (data.kind === "wait") return; // for the user, who decides
        this.#greeting.delete(link);
        if (data.kind === "lost") return fail(data.reason);
        resolve(data.content ?? {});
      };
      link.listen(onReply, fail, expectReply);
      expectReply();
      if (this.#isClosed) return fail(CLOSED);
      this.#greeting.set(link, fail);
      link.post({ kind: "hello", uuid, content: null, from: this.#id });
    });
  }

  /** @param {HostName} wanted @param {Link} link @param {Greeting} greeting */
  #settle(wanted, link, { lock, host = wanted }) {
    if (this.#isClosed) return link.close();
    this.host = host;
    this.#link = link;
    this.#worker = lock ?? undefined;
    link.listen(
      (data) => this.#receive(data),
      (reason) => this.#lose(reason),
    );
    this.#beats = setInterval(() => this.#beat(), this.#keepAliveMs);
    for (const message of this.#early.splice(0)) this.#post(link, message);
  }

  /** @param {Link} link @param {Message} message */
  #post(link, message) {
    const { kind, uuid } = message;
    if (kind === "hello") this.#hello = uuid;
    if (kind === "abort") this.#finish(uuid);
    link.post(this.#addressed(message)); // which may notice that the worker is lost
    if (this.#isClosed || uuid === undefined || UNANSWERED.has(String(kind))) return;
    this.#underWay.add(uuid);
    clearTimeout(this.#ending);
    this.#ending = undefined;
    if (!this.#watch) this.#begin(link);
  }

  /** Tells a worker that this client is gone. @param {Link} link */
  #leave(link) {
    link.post(this.#addressed({ kind: "bye" }));
  }

  /** @param {object} message */
  #addressed(message) {
    return { ...message, from: this.#id, worker: this.#worker };
  }

  /** @param {any} data */
  #receive(data) {
    if (data?.to !== this.#id) return;
    this.missedHeartbeat = 0;
    const { to: _, ...message } = data;
    if (message.kind === "lost") return this.#lose(message.reason);
    if (message.kind !== "initProgressCallback") this.#finish(message.uuid);
    if (this.#stayIds.delete(message.uuid) && this.#watch && this.#link) this.#stay(this.#link);
    // This connection watches the lock itself.
    const isGreeting = message.uuid !== undefined && message.uuid === this.#hello;
    if (isGreeting && message.content?.lock) message.content = { ...message.content, lock: null };
    this.dispatchEvent(new MessageEvent("message", { data: message }));
  }

  /** @param {unknown} uuid */
  #finish(uuid) {
    if (!this.#underWay.delete(uuid) || this.#underWay.size > 0) return;
    this.#ending = setTimeout(() => {
      this.#watch?.abort();
      this.#watch = undefined;
    }, IDLE_MS);
  }

  /**
   * While requests are under way: waits for the worker's lock, which is free once it has ended, and
   * asks a Service Worker to stay. Not at other times: a page that waits for a lock is not kept for
   * the browser's "back". Between requests heartbeats alone keep the worker, while the page is seen.
   * @param {Link} link
   */
  #begin(link) {
    const watch = (this.#watch = new AbortController());
    const { signal } = watch;
    if (this.#worker && globalThis.navigator?.locks) {
      const lost = () => this.#lose("it was terminated");
      navigator.locks.request(this.#worker, { signal }, lost).catch(() => {}); // aborted
    }
    if (!link.needsCalls) return;
    this.#stayIds.clear(); // those of an earlier watch end
    this.#stay(link, STAY_MS / 2);
    this.#stay(link);
  }

  /**
   * Keeps a Service Worker alive by short events, one after another: a hidden page's own timers are
   * too slow. An update that takes over at once waits for their end, in Chrome for 5 minutes at most.
   * Two run at any time, half their length apart: between one event and the next, Chrome would stop a
   * worker that is to be replaced.
   * @param {Link} link @param {number} [ms]
   */
  #stay(link, ms = STAY_MS) {
    const uuid = newUuid();
    this.#stayIds.add(uuid);
    link.post(this.#addressed({ kind: "stay", uuid, content: { ms } }));
  }

  #beat() {
    if (this.missedHeartbeat >= MAX_SILENT_BEATS) {
      if (this.#link) this.#leave(this.#link); // it may only be busy
      const seconds = (MAX_SILENT_BEATS * this.#keepAliveMs) / 1000;
      return this.#lose(`it has said nothing for ${seconds} s`);
    }
    this.missedHeartbeat += 1;
    this.#link?.post(this.#addressed({ kind: "keepAlive", uuid: newUuid() }));
  }

  /** @param {string | HomeError} reason */
  #lose(reason) {
    if (this.#isClosed) return;
    this.#end();
    this.dispatchEvent(new CustomEvent("close", { detail: reason }));
  }

  #end() {
    this.#isClosed = true;
    this.#watch?.abort();
    clearTimeout(this.#ending);
    clearInterval(this.#beats);
    for (const fail of this.#greeting.values()) fail(CLOSED);
    this.#link?.close();
  }
}

/** @param {boolean} gpu @returns {HostName[]} the best one first */
function hostsFor(gpu) {
  if (!gpu) return ["tab"];
  return "SharedWorker" in globalThis
    ? ["service-worker", "shared-worker", "tab"]
    : ["service-worker", "tab"];
}

/** Whether this page or worker has a GPU worth using: not a software adapter. */
export async function hasGpu() {
  const adapter = await globalThis.navigator?.gpu?.requestAdapter().catch(() => null);
  if (!adapter) return false;
  const { vendor = "", architecture = "", description = "" } = adapter.info ?? {};
  const isFallback = /** @type {any} */ (adapter).isFallbackAdapter ?? false;
  return !isFallback && !SOFTWARE.test(`${vendor} ${architecture} ${description}`);
}

/** @param {number} ms @returns {Promise<void>} */
function wait(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
