// A worker while Python starts, under plain Node, which has no stores.

import assert from "node:assert/strict";
import { afterEach, before, test } from "node:test";
import { build } from "esbuild";

const ROOT = "https://site.example/chat/worker.js";
const SITE = { model_list: [{ model_id: "a", model: "https://site.example/a.gguf", sha256: "1" }] };
const realFetch = fetch;
let Prefetch, Starting;

before(async () => {
  globalThis.location = new URL(ROOT);
  globalThis.isSecureContext = false; // no stores
  ({ Prefetch } = await load("prefetch"));
  ({ Starting } = await load("starting"));
});
afterEach(() => void (globalThis.fetch = realFetch));

async function load(name) {
  const entryPoints = [new URL(`../src/${name}.ts`, import.meta.url).pathname];
  const { outputFiles } = await build({ entryPoints, bundle: true, format: "esm", write: false });
  return import(`data:text/javascript,${encodeURIComponent(outputFiles[0].text)}`);
}

/** A response that grows by a byte whenever it is read, up to `size`. */
function growing(size, read) {
  const pull = (controller) => {
    if (read.count === size) controller.close();
    else controller.enqueue(Uint8Array.of(read.count++));
  };
  return new Response(new ReadableStream({ pull }, { highWaterMark: 0 }), {
    headers: { "Content-Length": `${size}` },
  });
}

test("a body is read before anybody asks, and each response is taken once", async () => {
  const read = { count: 0 };
  globalThis.fetch = async () => growing(50, read);
  const prefetch = new Prefetch();
  prefetch.begin(new URL("models/a.gguf", ROOT));
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(read.count, 50);
  assert.equal(prefetch.take("models/b.gguf"), undefined);
  const response = await prefetch.take("models/a.gguf"); // as Python may name it
  assert.equal(response.headers.get("Content-Length"), "50");
  assert.equal((await response.arrayBuffer()).byteLength, 50);
  assert.equal(prefetch.take("models/a.gguf"), undefined);
});

test("whoever takes a failed fetch is told", async () => {
  globalThis.fetch = async () => Promise.reject(new TypeError("no network"));
  const prefetch = new Prefetch();
  prefetch.begin(new URL(ROOT));
  await assert.rejects(prefetch.take(ROOT), /no network/);
});

test("a download that is stopped ends, and is not handed out", async () => {
  const signals = [];
  globalThis.fetch = async (_, { signal }) =>
    void signals.push(signal) ?? growing(50, { count: 0 });
  const prefetch = new Prefetch();
  const urls = ["models/a.gguf", "models/b.gguf"];
  for (const url of urls) prefetch.begin(new URL(url, ROOT));
  await prefetch.take(urls[0]);
  prefetch.stop();
  assert.deepEqual(
    signals.map(({ aborted }) => aborted),
    [false, true],
  );
  assert.equal(prefetch.take(urls[1]), undefined);
});

async function begun(appConfig, modelId) {
  const urls = [];
  const posted = [];
  const prefetch = { begin: ({ href }) => urls.push(href) };
  const starting = new Starting(prefetch, Promise.resolve(SITE));
  const post = (each) => posted.push(each);
  const other = { model_list: [{ model_id: "a", model: "/other.gguf" }] };
  if (appConfig) starting.observe({ kind: "setAppConfig", content: appConfig }, post);
  starting.observe({ kind: "setAppConfig", content: other }, () => {}); // of another client
  starting.observe({ kind: "keepAlive" }, post);
  starting.observe({}, post);
  starting.observe({ kind: "reload", uuid: "1", content: { modelId: [modelId] } }, post);
  starting.advance(0.5);
  starting.advance(1);
  await new Promise((resolve) => setTimeout(resolve));
  return { urls, posted };
}

const listing = (model, sha256) => ({ model_list: [{ model_id: "m", model, sha256 }] });

test("the model of a reload is found as Python finds it", async () => {
  const url = "https://site.example/a.gguf";
  assert.deepEqual((await begun(null, "a")).urls, [url]);
  assert.deepEqual((await begun(listing("pypi:a/b", "1"), "m")).urls, [url]);
  assert.deepEqual((await begun(listing("/m.gguf#sha256=0"), "m")).urls, [
    "https://site.example/m.gguf",
  ]);
  for (const config of [listing("pypi:a/b", "2"), listing("pypi:a/b"), listing("hf:a/b/c")]) {
    assert.deepEqual((await begun(config, "m")).urls, []);
  }
  assert.deepEqual((await begun(null, "unknown")).urls, []);
});

test("a reload is told how far the start is", async () => {
  const { posted } = await begun(null, "a");
  assert.deepEqual(
    [...new Set(posted.map(({ kind, uuid }) => `${kind} ${uuid}`))],
    ["initProgressCallback 1"],
  );
  const progress = posted.map(({ content }) => content.progress);
  assert.deepEqual(progress, [0, 0.05, 0.1]);
  assert.ok(posted.every(({ content }) => content.phase === "runtime"));
});

test("an unload stops the reloads before it, and their downloads", async () => {
  const [urls, posted] = [[], []];
  let numStopped = 0;
  const prefetch = { begin: ({ href }) => urls.push(href), stop: () => (numStopped += 1) };
  const starting = new Starting(prefetch, Promise.resolve(SITE));
  const observe = (message) => starting.observe(message, ({ uuid }) => posted.push(uuid));
  const reload = (uuid) => ({ kind: "reload", uuid, content: { modelId: ["a"] } });
  observe(reload("1"));
  observe({ kind: "unload", uuid: "2" });
  observe(reload("3"));
  starting.advance(1);
  await new Promise((resolve) => setTimeout(resolve));
  assert.equal(numStopped, 1);
  assert.deepEqual(urls, [SITE.model_list[0].model]); // of the second reload
  assert.deepEqual(posted, ["1", "3", "3"]);
});

test("a browser that lacks a store, or has it blocked, has kept nothing in it", async () => {
  const insecure = async () => Promise.reject(new DOMException("blocked", "SecurityError"));
  const had = { caches: globalThis.caches, indexedDB: globalThis.indexedDB };
  globalThis.isSecureContext = true;
  try {
    assert.equal(globalThis.navigator?.storage, undefined); // as in WebKitGTK
    globalThis.indexedDB = { databases: insecure };
    globalThis.caches = { has: insecure };
    assert.deepEqual((await begun(null, "a")).urls, [SITE.model_list[0].model]);
    globalThis.caches = { has: async () => true };
    assert.deepEqual((await begun(null, "a")).urls, []);
  } finally {
    Object.assign(globalThis, had, { isSecureContext: false });
  }
});
