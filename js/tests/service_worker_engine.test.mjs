// The engine that pages share, in front of homes that answer as a test says.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { build } from "esbuild";
import * as client from "../dist/client.js";
import { kinds, until } from "./fake_worker.mjs";

const FAKE = new URL("fake_homes.mjs", import.meta.url).pathname;
const { outputFiles } = await build({
  entryPoints: [new URL("../src/client/index.ts", import.meta.url).pathname],
  bundle: true,
  format: "esm",
  write: false,
  plugins: [
    {
      name: "fake homes",
      setup: ({ onResolve }) => onResolve({ filter: /\/homes\.js$/ }, () => ({ path: FAKE })),
    },
  ],
});
const code = Buffer.from(outputFiles[0].contents).toString("base64");
const { CreateServiceWorkerMLCEngine, ServiceWorkerMLCEngine, WebLLMError } = await import(
  `data:text/javascript;base64,${code}`
);
const { homes } = globalThis;

beforeEach(() => homes.splice(0));

test("the factory waits for a home, loads, and the engine says what serves it", async () => {
  const created = CreateServiceWorkerMLCEngine("m", { root: "/w/" }, { temperature: 0 }, 5000);
  await until(() => homes.length > 0);
  const [home] = homes;
  assert.deepEqual(home.options, { host: "auto", root: "/w/", keepAliveMs: 5000 });
  assert.deepEqual(kinds(home.posted), ["hello"]);
  home.connect("service-worker");
  const engine = await created;
  assert.deepEqual(home.posted[1].content, { modelId: ["m"], chatOpts: [{ temperature: 0 }] });
  assert.equal(engine.host, "service-worker");
  home.missedHeartbeat = 2;
  assert.deepEqual([engine.missedHeartbeat, engine.missedHeatbeat], [2, 2]);
  engine.terminate();
  assert.ok(home.isClosed);
});

test("without a home the factory throws the error of its name, and closes", async () => {
  const created = CreateServiceWorkerMLCEngine("m", { host: "service-worker" });
  await until(() => homes.length > 0);
  const [home] = homes;
  home.refuse("NoServiceWorkerAPIError", "a page without https has none");
  const error = await created.catch((thrown) => thrown);
  assert.ok(error instanceof WebLLMError);
  const { name, message } = error;
  assert.deepEqual([name, message], ["NoServiceWorkerAPIError", "a page without https has none"]);
  assert.ok(home.isClosed);
  assert.deepEqual(homes.length, 1);
});

test("statistics are asked for at once, since every home's worker has them", async () => {
  const engine = new ServiceWorkerMLCEngine();
  engine.getEngineStats().catch(() => {}); // it is closed before the reply
  await until(() => homes[0].posted.length > 1);
  assert.deepEqual(kinds(homes[0].posted), ["hello", "getEngineStats"]);
  engine.terminate();
});

test("calls wait for the home, and learn that there is none; the next call tries again", async () => {
  const engine = new ServiceWorkerMLCEngine();
  assert.equal(engine.host, "");
  const loading = engine.reload("m");
  const asking = engine.completions.create({ prompt: "p" });
  homes[0].refuse("ServiceWorkerInitializationError", "its script is not found");
  for (const call of [loading, asking, engine.ready]) {
    await assert.rejects(call, { name: "ServiceWorkerInitializationError" });
  }
  const again = engine.reload("m");
  homes[1].connect("tab");
  await again;
  assert.equal(engine.host, "tab");
});

test("answers go on in the next home; one that there is not fails them", async () => {
  const engine = new ServiceWorkerMLCEngine({ appConfig: { model_list: [] } });
  homes[0].connect("service-worker");
  await engine.reload("m");
  homes[0].answer = undefined; // says nothing more
  const answer = engine.completions.create({ prompt: "p" });
  homes[0].lose("it was terminated");
  await until(() => homes.length > 1);
  assert.ok(homes[0].isClosed);
  homes[1].answer = { choices: [] };
  homes[1].connect("service-worker");
  assert.deepEqual(await answer, { choices: [] });
  const sent = ["hello", "setAppConfig", "reload", "completionNonStreaming"];
  assert.deepEqual(kinds(homes[1].posted).slice(0, 4), sent);
  homes[1].answer = undefined;
  const other = engine.completions.create({ prompt: "p" });
  homes[1].lose("it was terminated");
  await until(() => homes.length > 2);
  homes[2].refuse("NoServiceWorkerAPIError", "none");
  await assert.rejects(other, { name: "NoServiceWorkerAPIError" });
});

test("nothing is written to the journal unless the request asks, if the page wants so", async () => {
  const asked = (home) => home.posted.at(-1).content.request.extra_body;
  for (const [persist, isKept] of [
    [undefined, true],
    [false, false],
  ]) {
    const engine = new ServiceWorkerMLCEngine(persist === undefined ? {} : { persist });
    const home = homes.at(-1);
    const answer = engine.completions.create({ prompt: "p" });
    assert.equal(asked(home)?.resumable.enabled === true, isKept);
    const resumable = { sessionId: "mine" };
    const kept = engine.completions.create({ prompt: "p", extra_body: { resumable } });
    assert.deepEqual(asked(home).resumable, { enabled: true, sessionId: "mine" });
    engine.terminate();
    await Promise.allSettled([answer, kept]);
  }
});

test("logit processors are refused before there is a home", () => {
  const config = { logitProcessorRegistry: new Map() };
  assert.throws(() => new ServiceWorkerMLCEngine(config), { name: "ConfigError" });
  assert.equal(homes.length, 0);
});

test("a host that there is not is an error of the package", async () => {
  await assert.rejects(CreateServiceWorkerMLCEngine("m", { host: "nowhere" }), (error) => {
    return error instanceof WebLLMError && error.code === "invalid_config";
  });
});

test("the engine of the package exports is made where there is no home, as on a server", async () => {
  const engine = new client.ServiceWorkerMLCEngine();
  engine.setLogLevel("DEBUG");
  await assert.rejects(engine.reload("m"), client.WebLLMError);
  engine.terminate();
});
