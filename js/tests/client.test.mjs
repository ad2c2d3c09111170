// The client with a worker at the other end of a MessageChannel, under plain Node.

import assert from "node:assert/strict";
import { test } from "node:test";
import * as webllm from "../dist/client.js";
import { ASK, channel, chunk, connect, counting, kinds } from "./fake_worker.mjs";

const { CreateWebWorkerMLCEngine, WebLLMError } = webllm;

async function settle() {
  await new Promise((resolve) => setTimeout(resolve, 20));
}

test("loads a model and reports progress", async () => {
  const reports = [];
  const [port1, port2] = channel();
  const received = [];
  port2.onmessage = ({ data: { kind, uuid, content } }) => {
    received.push({ kind, content });
    if (kind !== "reload") return;
    const report = { progress: 0.5, timeElapsed: 1, text: "half" };
    port2.postMessage({ kind: "initProgressCallback", uuid, content: report });
    port2.postMessage({ kind: "return", uuid, content: null });
  };
  const appConfig = { model_list: [] };
  const initProgressCallback = (report) => reports.push(report.text);
  const options = { temperature: 0 };
  await CreateWebWorkerMLCEngine(port1, "m", { appConfig, initProgressCallback }, options);
  assert.deepEqual(reports, ["half"]);
  assert.deepEqual(received.slice(1), [
    { kind: "setAppConfig", content: appConfig },
    { kind: "reload", content: { modelId: ["m"], chatOpts: [options] } },
  ]);
});

test("a load that unload stops is rejected, and no later request expects its model", async () => {
  const stops = [];
  const info = { name: "ModelNotLoadedError", code: "model_not_loaded", message: "stopped" };
  const { engine, received } = connect({
    reload: () => new Promise((_, reject) => stops.push(() => reject({ info }))),
    unload: () => void stops.forEach((stop) => stop()),
    chatCompletionNonStreaming: () => ({ choices: [] }),
  });
  const loading = engine.reload("m");
  const unloading = engine.unload();
  await assert.rejects(loading, webllm.ModelNotLoadedError);
  await unloading;
  await engine.chat.completions.create(ASK);
  assert.deepEqual(received.at(-1).content.modelId, []);
});

test("a load that ends as unload is called leaves no model that requests expect", async () => {
  const { engine, received } = connect({
    unload: () => null,
    chatCompletionNonStreaming: () => ({ choices: [] }),
  });
  await Promise.all([engine.reload("m"), engine.unload()]);
  await engine.chat.completions.create(ASK);
  assert.deepEqual(received.at(-1).content.modelId, []);
});

test("a model of the hub is found by the URL that Python fetches", async () => {
  const keys = []; // of single files; a set of files is looked for first
  const had = globalThis.caches;
  const match = async (key) => void (key.endsWith(".note") && keys.push(key));
  globalThis.caches = { match };
  const hub = "https://huggingface.co/o/r/resolve";
  const sources = [
    ["hf:o/r/f.gguf", `${hub}/main/f.gguf`],
    ["hf:o/r@refs/pr/1/a/f(1)%.gguf", `${hub}/refs%2Fpr%2F1/a/f%281%29%25.gguf`],
    ["hf:o/r@fix%2Fbug%2525/f.gguf", `${hub}/fix%2Fbug%2525/f.gguf`],
  ];
  for (const model of sources.flat()) {
    await webllm.hasModelInCache("m", { model_list: [{ model_id: "m", model }] });
  }
  globalThis.caches = had;
  const [a, b, c, d, e, f] = keys;
  assert.deepEqual([a, c, e], [b, d, f]);
  assert.equal(new Set(keys).size, 3);
});

test("the built-in catalogue has the models of the npm package", async () => {
  const npm = await import("@mlc-ai/web-llm");
  const { model_list: ours } = webllm.prebuiltAppConfig;
  const { model_list: theirs } = npm.prebuiltAppConfig;
  assert.deepEqual(
    ours.map((each) => each.model_id),
    ["SmolLM2-135M-Instruct", "gemma-3-270m", ...theirs.map((each) => each.model_id)],
  );
  assert.deepEqual(
    ours.slice(2).map((each) => [each.model, each.vram_required_MB]),
    theirs.map((each) => [each.model, each.vram_required_MB]),
  );
  assert.equal(webllm.modelVersion, npm.modelVersion);
  assert.equal(webllm.modelLibURLPrefix, npm.modelLibURLPrefix);
});

test("an id without its quantization stands for the variant of this browser's device", async () => {
  const keys = []; // of single files; a set of files is looked for first
  const had = globalThis.caches;
  const match = async (key) => void (key.endsWith(".note") && keys.push(key));
  globalThis.caches = { match };
  const gpu = (features) => ({ requestAdapter: async () => ({ info: {}, features }) });
  const devices = [undefined, gpu(["shader-f16"]), gpu([])];
  const hadNavigator = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  for (const device of devices) {
    const value = { gpu: device };
    Object.defineProperty(globalThis, "navigator", { value, configurable: true });
    await webllm.hasModelInCache("TinyLlama-1.1B-Chat-v1.0");
  }
  if (hadNavigator) Object.defineProperty(globalThis, "navigator", hadNavigator);
  else delete globalThis.navigator;
  await webllm.hasModelInCache("TinyLlama-1.1B-Chat-v1.0-q4f32_1-MLC");
  globalThis.caches = had;
  const [cpu, f16, f32, named] = keys;
  assert.equal(cpu, f16);
  assert.equal(f32, named);
  assert.notEqual(f16, f32);
  await assert.rejects(webllm.hasModelInCache("TinyLlama"), {
    name: "ModelNotFoundError",
    message: /no model called "TinyLlama"; known are SmolLM2-135M-Instruct, .* and 163 more$/,
  });
});

test("asks for whole answers, and says which models it expects", async () => {
  const { engine, received } = connect({
    chatCompletionNonStreaming: () => ({ choices: [{ message: { content: "Hi" } }] }),
  });
  await engine.reload(["m", "n"]);
  const reply = await engine.chat.completions.create({ ...ASK, model: "n" });
  assert.equal(reply.choices[0].message.content, "Hi");
  const { request, modelId } = received.at(-1).content;
  assert.deepEqual(modelId, ["m", "n"]);
  assert.deepEqual(request, { ...ASK, model: "n" });
});

test("streams several answers at once", async () => {
  const { engine } = connect(counting());
  await engine.reload("m");
  const request = { ...ASK, stream: true };
  const streams = await Promise.all([1, 2].map(() => engine.chat.completions.create(request)));
  const texts = [];
  for (let turn = 0; turn < 2; turn += 1) {
    for (const stream of streams) {
      texts.push((await stream.next()).value.choices[0].delta.content);
    }
  }
  assert.deepEqual(texts, ["1", "1", "2", "2"]);
});

test("ends the answer in the worker when the loop is left", async () => {
  const { engine, received } = connect(counting());
  await engine.reload("m");
  const stream = await engine.chatCompletion({ ...ASK, stream: true });
  for await (const each of stream) {
    if (each.choices[0].delta.content === "3") break;
  }
  await settle();
  const { uuid, content } = received.find(({ kind }) => kind === "chatCompletionStreamInit");
  assert.equal(content.streamId, uuid);
  assert.deepEqual(received.at(-1), { kind: "abort", uuid, content: null });
  assert.deepEqual(await stream.next(), { done: true, value: undefined });
});

test("ends a wait for the next chunk when the stream is left meanwhile", async () => {
  const { engine } = connect({
    ...counting(),
    completionStreamNextChunk: () => new Promise(() => {}),
  });
  await engine.reload("m");
  const stream = await engine.chatCompletion({ ...ASK, stream: true });
  const next = stream.next();
  await stream.return();
  assert.deepEqual(await next, { done: true, value: undefined });
});

test("interrupts workers of WebLLM's, which know no abort", async () => {
  const { engine, received } = connect({ ...counting(), hello: () => new Promise(() => {}) });
  await engine.reload("m");
  for await (const _ of await engine.chatCompletion({ ...ASK, stream: true })) break;
  await settle();
  assert.equal(kinds(received).at(-1), "interruptGenerate");
});

test("a stream that ended is not aborted", async () => {
  let left = 2;
  const { engine, received } = connect({
    completionStreamInit: () => null,
    completionStreamNextChunk: () => (left-- > 0 ? { choices: [{ text: "a" }] } : undefined),
  });
  await engine.reload("m");
  const texts = [];
  for await (const each of await engine.completions.create({ prompt: "p", stream: true })) {
    texts.push(each.choices[0].text);
  }
  assert.deepEqual(texts, ["a", "a"]);
  assert.ok(!kinds(received).includes("abort"));
});

test("throws errors with their names, codes and fields", async () => {
  const info = {
    name: "RequestError",
    message: "temperature is 9",
    code: "invalid_request_error",
    status: 400,
    field: "temperature",
  };
  const refuse = () => {
    throw Object.assign(new Error("temperature is 9"), { info });
  };
  const { engine } = connect({ chatCompletionNonStreaming: refuse, embedding: () => refuse() });
  await engine.reload("m");
  for (const ask of [engine.chatCompletion(ASK), engine.embeddings.create({ input: "a" })]) {
    const error = await ask.catch((each) => each);
    assert.ok(error instanceof WebLLMError);
    const { name, message, code, status, field } = error;
    assert.deepEqual({ name, message, code, status, field }, info);
  }
});

test("throws what a worker of WebLLM's gives: text alone", async () => {
  const { engine } = connect({
    getMessage: () => {
      throw new TypeError("undefined is no function");
    },
  });
  await assert.rejects(engine.getMessage(), {
    name: "WebLLMError",
    message: "TypeError: undefined is no function",
  });
});

test("refuses what cannot be posted", async () => {
  const { engine } = connect();
  await assert.rejects(engine.chatCompletion({ ...ASK, stop: () => {} }), { name: "RequestError" });
});

test("whoever waits for a worker learns that it is closed", async () => {
  const { engine } = connect({ getMessage: () => new Promise(() => {}) });
  const waiting = engine.getMessage();
  engine.terminate();
  await assert.rejects(waiting, { name: "WorkerLostError", code: "worker_lost", status: 503 });
  await assert.rejects(engine.unload(), { name: "WorkerLostError" });
});

test("every other method is one message", async () => {
  const answer = (content) => content ?? "nothing";
  const names = [
    ...["unload", "resetChat", "getMessage", "runtimeStatsText", "forwardTokensAndSample"],
    ...["getGPUVendor", "getMaxStorageBufferBindingSize", "customRequest"],
  ];
  const { engine, received } = connect(Object.fromEntries(names.map((name) => [name, answer])));
  await engine.unload();
  await engine.resetChat(true, "m");
  assert.deepEqual(await engine.getMessage("m"), { modelId: "m" });
  assert.deepEqual(await engine.runtimeStatsText(), { modelId: null });
  const forwarded = await engine.forwardTokensAndSample([1, 2], true);
  assert.deepEqual(forwarded, { inputIds: [1, 2], isPrefill: true, modelId: null });
  assert.equal(await engine.getGPUVendor(), "nothing");
  assert.equal(await engine.getMaxStorageBufferBindingSize(), "nothing");
  const asked = await engine.customRequest("name", { a: 1 });
  assert.deepEqual(asked, { requestName: "name", requestMessage: { a: 1 } });
  engine.setLogLevel("DEBUG");
  engine.interruptGenerate();
  await settle();
  assert.deepEqual(kinds(received), ["hello", ...names, "setLogLevel", "interruptGenerate"]);
});

test("asks what the model runs on where the worker can say", async () => {
  const hello = () => ({ protocol: 2 });
  const { engine } = connect({ hello, getDeviceName: ({ modelId }) => `CPU for ${modelId}` });
  await engine.reload("m");
  assert.equal(await engine.getDeviceName("m"), "CPU for m");
  const older = connect();
  await older.engine.reload("m");
  assert.equal(await older.engine.getDeviceName(), "");
  assert.ok(!kinds(older.received).includes("getDeviceName"));
  assert.deepEqual(await older.engine.getEngineStats(), { models: [] });
});

test("errors are of the classes of their names", async () => {
  const info = { name: "IntegrityError", message: "no", code: "integrity_error", status: 502 };
  const { engine } = connect({
    getMessage: () => {
      throw Object.assign(new Error(), { info });
    },
  });
  const error = await engine.getMessage().catch((thrown) => thrown);
  assert.ok(error instanceof webllm.IntegrityError && error instanceof webllm.ArtifactError);
  assert.ok(error instanceof WebLLMError && !(error instanceof webllm.RequestError));
});

test("logit processors that cannot cross are refused", () => {
  const config = { logitProcessorRegistry: new Map() };
  const refusal = { name: "ConfigError", message: /register it in the worker's own script/ };
  assert.throws(() => connect({}, config), refusal);
  assert.throws(() => new webllm.MLCEngine(config), refusal); // and makes no worker before
  const { engine } = connect();
  assert.throws(() => engine.setLogitProcessorRegistry(new Map()), refusal);
  engine.setLogitProcessorRegistry(undefined); // as WebLLM: there are none any more
});

test("sessions are listed, resumed and deleted", async () => {
  const text = { sessionId: "s", recoveredText: "1 2 " };
  const chunks = [chunk("3 "), chunk("4 ")];
  const { engine, received } = connect({
    hello: () => ({ protocol: 3 }),
    listResumableSessions: () => [{ sessionId: "s", resumable: true }],
    resumeChatCompletion: () => text,
    resumeChatCompletionStreamInit: ({ sessionId }) => (sessionId === "s" ? null : text),
    completionStreamNextChunk: () => chunks.shift(),
    deleteResumableSession: () => null,
    deleteAllResumableSessions: () => null,
  });
  assert.deepEqual(await engine.listResumableSessions(), [{ sessionId: "s", resumable: true }]);
  assert.deepEqual(await engine.resumeChatCompletion("s"), text);
  assert.deepEqual(await engine.resumeChatCompletion("s", { stream: true }), text);
  const options = { continueGeneration: true, stream: true };
  assert.deepEqual(await engine.resumeChatCompletion("ended", options), text);
  let rest = "";
  for await (const each of await engine.resumeChatCompletion("s", options)) {
    rest += each.choices[0].delta.content;
  }
  assert.equal(rest, "3 4 ");
  await engine.deleteResumableSession("s");
  await engine.deleteAllResumableSessions();
  assert.deepEqual(kinds(received).slice(1), [
    "listResumableSessions",
    "resumeChatCompletion",
    "resumeChatCompletion",
    "resumeChatCompletionStreamInit",
    "resumeChatCompletionStreamInit",
    ...Array(3).fill("completionStreamNextChunk"),
    "deleteResumableSession",
    "deleteAllResumableSessions",
  ]);
  const { uuid, content } = received[5];
  assert.deepEqual(content, { sessionId: "s", options, streamId: uuid });
});

test("the sessions of a worker of WebLLM's are deleted one by one", async () => {
  const deleted = [];
  const { engine } = connect({
    hello: undefined,
    listResumableSessions: () => [{ sessionId: "a" }, { sessionId: "b" }],
    deleteResumableSession: ({ sessionId }) => void deleted.push(sessionId),
  });
  await engine.deleteAllResumableSessions();
  assert.deepEqual(deleted, ["a", "b"]);
});

test("resources are classes over an engine", async () => {
  const { engine } = connect({
    chatCompletionNonStreaming: ({ request }) => ({ id: request.messages[0].content }),
    completionNonStreaming: ({ request }) => ({ id: request.prompt }),
    embedding: ({ request }) => ({ id: request.input }),
  });
  await engine.reload("m");
  assert.ok(engine.chat instanceof webllm.Chat);
  const { create } = new webllm.Chat(engine).completions;
  assert.equal((await create(ASK)).id, "Hello");
  assert.equal((await new webllm.Completions(engine).create({ prompt: "p" })).id, "p");
  assert.equal((await new webllm.Embeddings(engine).create({ input: "i" })).id, "i");
});

test("every value that WebLLM exports is one here", async () => {
  const later = /Extension|rejectCompletionResumable/;
  const names = Object.keys(await import("@mlc-ai/web-llm")).filter((name) => !later.test(name));
  assert.deepEqual(
    names.filter((name) => webllm[name] === undefined),
    [],
  );
});

test("what has no meaning here says so", () => {
  for (const kind of ["ChatCompletion", "Completion", "Embedding"]) {
    assert.throws(() => webllm[`postInitAndCheckFields${kind}`]({}, "m", 0), {
      name: "ConfigError",
      message: /the worker checks each request; call .*create/,
    });
  }
  assert.throws(() => new webllm.ServiceWorkerMLCEngineHandler(), {
    name: "ConfigError",
    message: /webllm\/service_worker.js has ServiceWorkerMLCEngineHandler/,
  });
  assert.ok(webllm.ChatCompletionRequestUnsupportedFields.includes("audio"));
});

test("verifies hashes as records write them", async (context) => {
  const warned = context.mock.method(console, "warn", () => {});
  const data = new TextEncoder().encode("hello").buffer;
  const right = "sha256-LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=";
  const empty = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
  await webllm.verifyIntegrity(data, right, "u");
  const error = await webllm.verifyIntegrity(data, empty, "https://u").catch((thrown) => thrown);
  assert.ok(error instanceof webllm.IntegrityError);
  const { url, expected, actual } = error;
  assert.deepEqual({ url, expected, actual }, { url: "https://u", expected: empty, actual: right });
  await webllm.verifyIntegrity(data, empty, "https://u", "warn");
  assert.equal(warned.mock.callCount(), 1);
  await assert.rejects(webllm.verifyIntegrity(data, "md5-x", "u"), { name: "ConfigError" });
  const valid = [right, "sha384-x", "sha256-LPJN", `${right}x`, ""].map(webllm.isValidSRI);
  assert.deepEqual(valid, [true, false, false, false, false]);
});

test("an integrity error is made as WebLLM's is", () => {
  const error = new webllm.IntegrityError("u", "a", "b");
  assert.ok(error instanceof webllm.ArtifactError);
  const { name, url, expected, actual, code, status } = error;
  assert.deepEqual([name, url, expected, actual], ["IntegrityError", "u", "a", "b"]);
  assert.deepEqual([code, status], ["integrity_error", 502]);
  assert.match(error.message, /u has the hash b, expected a/);
});

test("an engine is made where there are no workers, as on a server", async () => {
  assert.equal(globalThis.Worker, undefined);
  assert.equal(globalThis.location, undefined);
  const engine = new webllm.MLCEngine({ appConfig: { model_list: [] }, root: "/webllm/" });
  engine.interruptGenerate();
  await assert.rejects(engine.reload("m"), {
    name: "WorkerLostError",
    message: /could not be made here: ReferenceError: .* is not defined/,
  });
  engine.terminate();
  new webllm.MLCEngine().terminate();
});

test("an engine makes its worker when it is first asked for something", async (context) => {
  const received = [];
  const scripts = [];
  context.after(() => ["Worker", "location"].forEach((name) => delete globalThis[name]));
  globalThis.location = { href: "https://site.example/page" };
  globalThis.Worker = class extends EventTarget {
    constructor(script) {
      super();
      scripts.push(script.href);
    }
    postMessage(message) {
      received.push(message);
      const data = { kind: "return", uuid: message.uuid, content: null };
      this.dispatchEvent(new MessageEvent("message", { data }));
    }
    terminate() {}
  };
  const appConfig = { model_list: [] };
  const engine = new webllm.MLCEngine({ appConfig, root: "/webllm/" });
  appConfig.model_list = null;
  assert.deepEqual(scripts, []);
  await engine.reload("m");
  await engine.resetChat();
  assert.deepEqual(scripts, ["https://site.example/webllm/worker.js"]);
  assert.deepEqual(kinds(received), ["hello", "setAppConfig", "reload", "resetChat"]);
  assert.deepEqual(received[1].content, { model_list: [] });
});

test("an integrity error of the worker has its hashes", async () => {
  const info = { name: "IntegrityError", message: "no", code: "integrity_error", status: 502 };
  const { engine } = connect({
    getMessage: () => {
      throw Object.assign(new Error(), { info: { ...info, url: "u", expected: "a", actual: "b" } });
    },
  });
  await assert.rejects(engine.getMessage(), { url: "u", expected: "a", actual: "b" });
});

test("a handler is refused in a page", () => {
  assert.throws(() => new webllm.WebWorkerMLCEngineHandler(), {
    constructor: webllm.NonWorkerEnvironmentError,
    code: "non_worker_environment",
    message: /^WebWorkerMLCEngineHandler was made in a page/,
  });
});

test("a handler whose Python is not there answers every message", async (context) => {
  const shown = context.mock.method(console, "error", () => {});
  globalThis.location = { href: import.meta.url };
  globalThis.WorkerGlobalScope = class {};
  const posted = [];
  const handler = new webllm.WebWorkerMLCEngineHandler({ root: "nowhere" });
  handler.postMessage = (message) => posted.push(message);
  handler.onmessage({ data: { kind: "hello", uuid: "early", content: null } });
  handler.onmessage({ data: null });
  handler.onmessage({ data: { kind: "setAppConfig", uuid: "never answered", content: {} } });
  while (posted.length === 0) await settle();
  handler.onmessage({ data: { kind: "unload", uuid: "late", content: null } });
  await settle();
  assert.deepEqual(
    posted.map(({ kind, uuid, error }) => [kind, uuid, error.name]),
    [
      ["throw", "early", "WorkerLostError"],
      ["throw", "late", "WorkerLostError"],
    ],
  );
  assert.match(posted[0].content, /Python could not start in it: .*nowhere\/host.js/);
  assert.equal(shown.mock.callCount(), 1);
});
