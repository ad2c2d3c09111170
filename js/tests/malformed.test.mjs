// Unreadable answers and lost workers.

import assert from "node:assert/strict";
import { test } from "node:test";
import { WebLLMError, WebWorkerMLCEngine } from "../dist/client.js";
import { ASK, channel, connect, kinds, until } from "./fake_worker.mjs";

/** An engine whose worker makes all answers but that to a hello with a function. */
function answered(answer) {
  const [ours, theirs] = channel();
  theirs.onmessage = ({ data: { kind, uuid } }) => {
    if (kind !== "hello") theirs.postMessage(answer(uuid, theirs));
  };
  return new WebWorkerMLCEngine(ours);
}

for (const kind of ["return", "throw"]) {
  for (const uuid of [5, undefined, null, ["u"]]) {
    test(`a ${kind} whose uuid is ${uuid} loses the worker`, async () => {
      const engine = answered(() => ({ kind, uuid, content: "x" }));
      const calls = await Promise.allSettled([engine.getMessage(), engine.runtimeStatsText()]);
      for (const { reason } of calls) assert.equal(reason.name, "WorkerLostError");
      await assert.rejects(engine.getMessage(), { name: "WorkerLostError" });
    });
  }
}

test("an answer of a kind that is not known fails its call", async () => {
  const engine = answered((uuid) => ({ kind: "returned", uuid }));
  await assert.rejects(engine.getMessage(), /cannot be read: its kind is returned/);
});

test("errors that are described wrongly are errors", async () => {
  const engine = answered((uuid) => ({ kind: "throw", uuid, content: { a: 1 }, error: { b: 2 } }));
  const error = await engine.getMessage().catch((each) => each);
  assert.ok(error instanceof WebLLMError);
  assert.equal(error.code, "webllm_error");
});

test("messages of other protocols are skipped", async () => {
  const engine = answered((uuid, port) => {
    for (const other of ["text", 5, null, undefined, [1], { type: "x" }, { kind: "x", uuid: 5 }]) {
      port.postMessage(other);
    }
    port.postMessage({ kind: "initProgressCallback", uuid, content: null });
    return { kind: "return", uuid, content: "said" };
  });
  assert.equal(await engine.getMessage(), "said");
});

test("a chunk that is none fails its stream, which ends in the worker", async () => {
  const { engine, received } = connect({
    chatCompletionStreamInit: () => null,
    completionStreamNextChunk: () => 7,
  });
  await engine.reload("m");
  const stream = await engine.chatCompletion({ ...ASK, stream: true });
  await assert.rejects(stream.next(), /cannot be read: a chunk is an object, received a number/);
  await until(() => kinds(received).includes("abort"));
  assert.deepEqual(await stream.next(), { done: true, value: undefined });
});

test("a progress callback that throws fails the load", async () => {
  const initProgressCallback = () => {
    throw new RangeError("of the page's own");
  };
  const reload = (_, port, uuid) => {
    port.postMessage({ kind: "initProgressCallback", uuid, content: { progress: 0.5 } });
    return new Promise(() => {});
  };
  const { engine, received } = connect({ reload }, { initProgressCallback });
  await assert.rejects(engine.reload("m"), RangeError);
  await until(() => kinds(received).includes("abort"));
});

test("whoever waits for a worker learns that it was terminated", async (context) => {
  let free;
  const request = (name, then) => {
    assert.equal(name, "its lock");
    return new Promise((resolve) => (free = () => resolve(then())));
  };
  const navigator = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  Object.defineProperty(globalThis, "navigator", {
    value: { locks: { request } },
    configurable: true,
  });
  context.after(() => Object.defineProperty(globalThis, "navigator", navigator ?? {}));
  const hello = () => ({ protocol: 2, lock: "its lock" });
  const { engine } = connect({ hello, getMessage: () => new Promise(() => {}) });
  await engine.reload("m");
  const waiting = engine.getMessage();
  free();
  await assert.rejects(waiting, { name: "WorkerLostError", message: /terminated/ });
});
