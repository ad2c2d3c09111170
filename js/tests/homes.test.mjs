// Connections to a site's engine under plain Node, in front of workers that a test answers for.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { until } from "./fake_worker.mjs";

let posted; // to the Service Worker
let registration;
let container;
let lockRequests;
let isLockAllowed;

Object.defineProperty(globalThis, "navigator", {
  configurable: true,
  value: {
    get serviceWorker() {
      return container;
    },
    locks: {
      request(name, ...rest) {
        lockRequests.push(name);
        if (!isLockAllowed) return Promise.reject(new DOMException("denied", "SecurityError"));
        if (name.startsWith("webllm worker")) return new Promise(() => {}); // it lives
        return new Promise((resolve) => resolve(rest.at(-1)()));
      },
    },
  },
});
// A connection's long waits do not keep the test's process.
const { setTimeout } = globalThis;
globalThis.setTimeout = (then, ms, ...rest) => {
  const timer = setTimeout(then, ms, ...rest);
  return ms >= 5_000 ? timer.unref() : timer;
};
globalThis.location = new URL("https://site.example/page.html");

const { Home } = await import("../../src/webllm/workers/homes.js");

beforeEach(() => {
  posted = [];
  lockRequests = [];
  isLockAllowed = true;
  const active = { scriptURL: "sw.js", postMessage: (message) => posted.push(message) };
  registration = { active, waiting: null };
  container = Object.assign(new EventTarget(), {
    ready: new Promise(() => {}),
    getRegistration: async () => registration,
    startMessages() {},
  });
});

/** What the Service Worker says in reply to a message. */
function say({ from: to, uuid }, message) {
  const data = { kind: "return", uuid, to, ...message };
  container.dispatchEvent(new MessageEvent("message", { data }));
}

async function connected(t, options) {
  const home = new Home({ host: "service-worker", ...options });
  t.after(() => home.close());
  await until(() => posted.length > 0);
  say(posted[0], { content: { lock: "webllm worker 1", root: "https://site.example/" } });
  await home.ready;
  return home;
}

function of(kind) {
  return posted.filter((each) => each.kind === kind);
}

test("times that browsers take for none are refused", () => {
  for (const keepAliveMs of [0, NaN, Infinity, 2 ** 31]) {
    assert.throws(() => new Home({ keepAliveMs }), { name: "ConfigError", message: /keepAliveMs/ });
  }
});

test("a connection that is closed before the worker answers leaves it", async () => {
  const home = new Home({ host: "service-worker" });
  await until(() => posted.length > 0);
  home.close();
  await assert.rejects(home.ready, { name: "ServiceWorkerInitializationError", message: /closed/ });
  assert.equal(of("bye")[0].from, posted[0].from);
});

test("a page that may not have Service Workers says so", async () => {
  container.getRegistration = () => Promise.reject(new DOMException("no", "SecurityError"));
  await assert.rejects(new Home({ host: "service-worker" }).ready, {
    name: "NoServiceWorkerAPIError",
  });
});

test("a tab that may not make its worker says so, and does not wait for ever", async (t) => {
  const why = "the worker is of another origin";
  globalThis.Worker = class {
    constructor() {
      throw new Error(why);
    }
  };
  t.after(() => delete globalThis.Worker);
  const failure = { name: "ServiceWorkerInitializationError", message: new RegExp(why) };
  const options = { host: "tab", root: "https://other.example/" };
  await assert.rejects(new Home(options).ready, failure);
  isLockAllowed = false;
  await assert.rejects(new Home(options).ready, { ...failure, message: /denied/ });
});

test("a Service Worker that is asked only where webllm's files lie is left", async (t) => {
  globalThis.Worker = class {
    constructor() {
      throw new Error("none");
    }
  };
  t.after(() => delete globalThis.Worker);
  const home = new Home({ host: "tab" });
  await until(() => posted.length > 0);
  say(posted[0], { content: { lock: null, root: "https://site.example/engine/" } });
  await assert.rejects(home.ready, { message: /https:\/\/site.example\/engine\/tab.js: .*none/ });
  await until(() => of("bye").length > 0);
});

test("only the greeting's lock is this connection's business", async (t) => {
  const home = await connected(t);
  const said = [];
  home.addEventListener("message", ({ data }) => said.push(data.content));
  home.postMessage({ kind: "hello", uuid: "1" });
  home.postMessage({ kind: "customRequest", uuid: "2" });
  for (const each of [...of("hello").slice(1), ...of("customRequest")]) {
    say(each, { content: { lock: "a lock" } });
  }
  assert.deepEqual(said, [{ lock: null }, { lock: "a lock" }]);
});

test("a Service Worker has two events at any time while a request is under way", async (t) => {
  const home = await connected(t);
  home.postMessage({ kind: "getMessage", uuid: "1" });
  const lengths = () => of("stay").map(({ content }) => content.ms);
  assert.deepEqual(lengths(), [5000, 10_000]);
  const [first, second] = of("stay");
  say(first, { kind: "heartbeat" });
  assert.deepEqual(lengths(), [5000, 10_000, 10_000]);
  say(second, { kind: "heartbeat" });
  assert.equal(of("stay").length, 4);
  say(first, { kind: "heartbeat" });
  assert.equal(of("stay").length, 4);
});

test("a worker that says nothing for three beats is left, since it may only be busy", async (t) => {
  const home = await connected(t, { keepAliveMs: 1 });
  const { detail } = await new Promise((resolve) => home.addEventListener("close", resolve));
  assert.match(detail, /has said nothing/);
  assert.deepEqual([of("keepAlive").length, of("bye").length], [3, 1]);
});

test("nothing waits for a worker that is gone when the first request is posted", async () => {
  const home = new Home({ host: "service-worker" });
  const closed = new Promise((resolve) => home.addEventListener("close", resolve));
  home.postMessage({ kind: "getMessage", uuid: "1" });
  await until(() => posted.length > 0);
  registration.active = null;
  say(posted[0], { content: { lock: "webllm worker 1" } });
  assert.equal((await closed).detail, "it was unregistered");
  assert.deepEqual(lockRequests, []);
});

const HELLO_MS = 30_000; // in which a worker has to answer
const MAX_WORKERS = 5; // of an extension, that may end one after another before the first reply

/** The port of a page to another extension's background worker. */
function fakePort() {
  const listeners = { onMessage: [], onDisconnect: [] };
  const event = (name) => ({ addListener: (listener) => listeners[name].push(listener) });
  const port = {
    posted: [],
    onMessage: event("onMessage"),
    onDisconnect: event("onDisconnect"),
    postMessage: (message) => port.posted.push(message),
    disconnect() {},
    say: (message) => listeners.onMessage.forEach((each) => each(message)),
    lose: () => listeners.onDisconnect.forEach((each) => each(port)),
  };
  return port;
}

/** A page's connection to another extension; its ports too, one for each worker. */
function toExtension(t) {
  const ports = [];
  globalThis.chrome = { runtime: { connect: () => ports[ports.push(fakePort()) - 1] } };
  t.after(() => delete globalThis.chrome);
  t.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  const home = new Home({ host: "extension", extensionId: "abc" });
  t.after(() => home.close());
  return { home, ports };
}

/** Waits for the greeting of the newest worker; returns a function that replies to it. */
async function greeted(ports) {
  while (ports.at(-1).posted.length === 0) await Promise.resolve();
  const { from: to, uuid } = ports.at(-1).posted[0];
  return (message) => ports.at(-1).say({ uuid, to, ...message });
}

const UNANSWERED = {
  name: "ServiceWorkerInitializationError",
  message: /^the extension abc: it does not answer; .*extension_service_worker.js/,
};

test("an extension that does not answer is not waited for", async (t) => {
  const { home, ports } = toExtension(t);
  await greeted(ports);
  t.mock.timers.tick(HELLO_MS);
  await assert.rejects(home.ready, UNANSWERED);
});

test("an extension whose user decides is waited for until then, also by its next worker", async (t) => {
  const { home, ports } = toExtension(t);
  for (let number = 1; number <= 2; number += 1) {
    const reply = await greeted(ports);
    reply({ kind: "wait" });
    t.mock.timers.tick(20 * HELLO_MS);
    assert.equal(ports.length, number);
    if (number === 1) ports[0].lose();
    else reply({ kind: "return", content: { host: "offscreen" } });
  }
  await home.ready;
  assert.equal(home.host, "offscreen");
});

test("an extension whose workers end one after another is left, whatever they said", async (t) => {
  const { home, ports } = toExtension(t);
  for (let number = 1; number <= MAX_WORKERS; number += 1) {
    (await greeted(ports))({ kind: "wait" });
    assert.equal(ports.length, number);
    ports.at(-1).lose();
  }
  await assert.rejects(home.ready, {
    name: "ServiceWorkerInitializationError",
    message: /^the extension abc: the browser has stopped the extension's background worker$/,
  });
  t.mock.timers.tick(20 * HELLO_MS);
  assert.equal(ports.length, MAX_WORKERS);
});

test("an extension that is removed while its user decides is left at once", async (t) => {
  const { home, ports } = toExtension(t);
  (await greeted(ports))({ kind: "wait" });
  globalThis.chrome.runtime.connect = () => {
    throw new Error("Extension context invalidated.");
  };
  ports[0].lose();
  await assert.rejects(home.ready, { message: /context invalidated/ });
});

test("a worker that is greeted while the user decides, and does not answer, is left", async (t) => {
  const { home, ports } = toExtension(t);
  (await greeted(ports))({ kind: "wait" });
  t.mock.timers.tick(20 * HELLO_MS);
  ports[0].lose();
  await greeted(ports);
  t.mock.timers.tick(HELLO_MS);
  await assert.rejects(home.ready, UNANSWERED);
});

test("what to look at is said of the worker that does not answer", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { ChannelLink } = await import("../../src/webllm/workers/homes.js");
  const opened = [];
  const open = () => opened[opened.push(new ChannelLink("the document", "a room")) - 1];
  const home = new Home({ host: "offscreen", open });
  while (opened.length === 0) await Promise.resolve();
  for (let each = 0; each < 9; each += 1) await Promise.resolve();
  t.mock.timers.tick(HELLO_MS);
  await assert.rejects(home.ready, { message: /^the document: it does not answer; is its worker/ });
});
