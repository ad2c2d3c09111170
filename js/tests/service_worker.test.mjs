// The events of a Service Worker under plain Node, with JavaScript in place of Python: each settles.

import assert from "node:assert/strict";
import { before, mock, test } from "node:test";
import { setTimeout as realSleep } from "node:timers/promises";
import { build } from "esbuild";

const LOOK_MS = 3_000; // between the worker's looks for closed pages
const listeners = {};
const pages = new Set(["a page"]);
const replies = []; // to the page
let endpoint; // of the last page, as Python sees it
let python; // what happens when it starts

before(async () => {
  mock.timers.enable({ apis: ["setInterval", "setTimeout"] });
  globalThis.self = globalThis;
  globalThis.location = new URL("https://site.example/sw.js");
  globalThis.registration = { scope: "https://site.example/" };
  globalThis.clients = { get: async (id) => (pages.has(id) ? {} : undefined), claim() {} };
  globalThis.addEventListener = (kind, listener) => (listeners[kind] = listener);
  globalThis.fetch = () => Promise.reject(new TypeError("no network"));
  globalThis.fakeBoot = () => python();
  const held = new Set();
  const request = (name, hold) => {
    if (held.has(name)) return new Promise(() => {});
    held.add(name);
    return Promise.resolve(hold()).finally(() => held.delete(name));
  };
  const locks = { request };
  Object.defineProperty(globalThis, "navigator", { value: { locks }, configurable: true });
  const isBoot = { filter: /^\.\/boot$/ };
  const fake = {
    name: "fake",
    setup(esbuild) {
      esbuild.onResolve(isBoot, () => ({ path: "boot", namespace: "fake" }));
      const contents = "export const boot = (options) => fakeBoot(options)";
      esbuild.onLoad({ filter: /./, namespace: "fake" }, () => ({ contents }));
    },
  };
  const { outputFiles } = await build({
    entryPoints: [new URL("../src/service_worker.ts", import.meta.url).pathname],
    bundle: true,
    format: "esm",
    write: false,
    plugins: [fake],
    define: { "import.meta.url": "self.location.href" },
  });
  await import(`data:text/javascript,${encodeURIComponent(outputFiles[0].text)}`);
});

/** Sends a message of the page; returns the promise that its event waits for. */
function send(data) {
  let ended;
  const source = { id: "a page", postMessage: (message) => replies.push(message) };
  listeners.message({ data, source, waitUntil: (promise) => (ended = promise) });
  return ended;
}

async function isOpen(ended) {
  const soon = realSleep(20, true);
  return Promise.race([ended.then(() => false), soon]);
}

function answer(kind, uuid, content) {
  endpoint.postMessage({ kind, uuid, content });
}

test("an event whose Python cannot start ends with its reply", async (t) => {
  const said = t.mock.method(console, "error", () => {});
  python = () => Promise.reject(new Error("no memory"));
  await send({ kind: "getMessage", uuid: "1", content: {} });
  assert.equal(replies[0].kind, "throw");
  assert.match(replies[0].content, /no memory/);
  assert.equal(said.mock.callCount(), 1);
});

test("messages that Python need not answer do not start it", async () => {
  python = () => assert.fail("it is started");
  await send({ kind: "keepAlive", uuid: "2" });
  assert.deepEqual(replies.at(-1), { kind: "heartbeat", uuid: "2" });
  await send({ kind: "keepAlive" });
  assert.equal(send({ type: "of another protocol" }), undefined);
  await send({ kind: "getEngineStats", uuid: "3", content: null });
  assert.deepEqual(replies.at(-1).content, { models: [], loading: [] });
});

test("another Python takes the place of one that has crashed", async () => {
  const started = [];
  python = async () => {
    const _api = {};
    started.push(_api);
    return { _api, runPythonAsync: async () => (served) => (endpoint = served) };
  };
  const ofHome = (message) => send({ ...message, from: "a home" });
  const greeting = async () => {
    await ofHome({ kind: "hello", uuid: "h" });
    await realSleep(1);
    return replies.at(-1).content.lock;
  };
  const worker = await greeting();
  await ofHome({ kind: "getMessage", uuid: "10", worker });
  await realSleep(1);
  started[0].on_fatal();
  await ofHome({ kind: "getMessage", uuid: "11", worker });
  assert.equal(replies.at(-1).kind, "lost");
  const next = await greeting();
  assert.notEqual(next, worker);
  await ofHome({ kind: "getMessage", uuid: "12", worker: next });
  await realSleep(1);
  assert.equal(started.length, 2);
  await ofHome({ kind: "bye" });
  started[1].on_fatal(); // the next test starts its own
});

test("an event ends of a page that this worker does not know", async () => {
  for (const [uuid, worker] of [
    ["7", undefined],
    ["8", "an earlier one"],
  ]) {
    await send({ kind: "stay", uuid, content: { ms: 10 }, from: "a home", worker });
    const { kind, to, uuid: answered } = replies.at(-1);
    assert.deepEqual([kind, to, answered], ["lost", "a home", uuid]);
  }
});

test("an event lasts until its reply: a value, an error, or none since its page is gone", async () => {
  python = async () => ({ runPythonAsync: async () => (served) => (endpoint = served) });
  await send({ kind: "setLogLevel", uuid: "3", content: "INFO" });
  const asked = ["4", "5", "6"].map((uuid) => send({ kind: "getMessage", uuid, content: {} }));
  assert.deepEqual(await Promise.all(asked.map(isOpen)), [true, true, true]);
  endpoint.postMessage({ kind: "initProgressCallback", uuid: "4", content: {} });
  assert.ok(await isOpen(asked[0]));
  endpoint.postMessage({ kind: "return", uuid: "4", content: "" });
  await asked[0];
  endpoint.postMessage({ kind: "throw", uuid: "5", content: "RequestError: wrong" });
  await asked[1];

  assert.ok(await isOpen(asked[2]));
  const closed = new Promise((resolve) => endpoint.addEventListener("close", resolve));
  pages.clear();
  mock.timers.tick(LOOK_MS);
  await asked[2];
  assert.equal((await closed).detail, "its page was closed");
});
