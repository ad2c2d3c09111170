// Streams that are dropped before their end, under node --expose-gc.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ASK, connect, counting, kinds, until } from "./fake_worker.mjs";
import { LOST, streaming, text, Workers } from "./lost_workers.mjs";

async function begin(engine) {
  return engine.chatCompletion({ ...ASK, stream: true });
}

/** Reads a chunk of a new stream and drops the stream. */
async function readAndForget(engine) {
  await (await begin(engine)).next();
}

/** Collects garbage between tasks; finalizers run in later tasks. */
async function collected(condition) {
  await until(() => {
    globalThis.gc();
    return condition();
  });
}

test("a stream that is forgotten is ended in the worker", async () => {
  const { engine, received } = connect(counting());
  await engine.reload("m");
  const kept = await begin(engine);
  await readAndForget(engine);
  await collected(() => kinds(received).includes("abort"));
  const [first, forgotten] = received.filter(({ kind }) => kind === "chatCompletionStreamInit");
  const aborted = received.filter(({ kind }) => kind === "abort");
  assert.deepEqual(aborted, [{ kind: "abort", uuid: forgotten.uuid, content: null }]);
  assert.equal((await kept.next()).value.choices[0].delta.content, "1");
  await kept.return();
  await until(() => kinds(received).filter((kind) => kind === "abort").length === 2);
  assert.equal(received.at(-1).uuid, first.uuid);
});

test("a stream that survives workers and is forgotten is ended, with its session", async () => {
  const workers = new Workers(streaming(text("a", [1]), LOST), ({ kind }) =>
    kind.endsWith("NextChunk") ? text("b", [2]) : null,
  );
  const engine = workers.engine();
  const { signal } = new AbortController(); // a signal that lives on keeps no stream
  const readTwoAndForget = async () => {
    const stream = await engine.completion({ prompt: "p", stream: true }, { signal });
    await stream.next();
    await stream.next();
  };
  await readTwoAndForget();
  await collected(() => workers.of("deleteResumableSession").length > 0);
  const begun = workers.received.filter(({ kind }) => kind === "completionStreamInit");
  const [aborted] = workers.received.filter(({ kind }) => kind === "abort");
  assert.equal(aborted.uuid, begun[1].uuid);
  assert.ok(!signal.aborted);
});

test("a stream that is forgotten after its end is not", async () => {
  const { engine, received } = connect({
    completionStreamInit: () => null,
    completionStreamNextChunk: () => undefined,
    ...counting(),
  });
  await engine.reload("m");
  const ended = async () => {
    for await (const _ of await begin(engine)) break;
  };
  await ended();
  await readAndForget(engine);
  await collected(() => kinds(received).filter((kind) => kind === "abort").length > 1);
  const begun = received.filter(({ kind }) => kind === "chatCompletionStreamInit");
  const aborted = received.filter(({ kind }) => kind === "abort");
  assert.deepEqual(
    aborted.map(({ uuid }) => uuid),
    begun.map(({ uuid }) => uuid),
  );
});
