// AbortSignals: of whole answers, streams, embeddings and loads, with and without a recovery.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ASK, chunk, connect, counting, kinds, until } from "./fake_worker.mjs";
import { LOST, streaming, text, Workers } from "./lost_workers.mjs";

const REASON = new RangeError("the page's own reason");
const forever = () => new Promise(() => {});
const silent = {
  ...{ chatCompletionNonStreaming: forever, completionNonStreaming: forever },
  ...{ embedding: forever, reload: forever, chatCompletionStreamInit: forever },
};

/** Each way to ask with a signal, and the kind of its message. */
const WAYS = {
  chatCompletionNonStreaming: (engine, options) => engine.chat.completions.create(ASK, options),
  completionNonStreaming: (engine, options) => engine.completions.create({ prompt: "p" }, options),
  embedding: (engine, options) => engine.embeddings.create({ input: "a" }, options),
  reload: (engine, options) => engine.reload("m", undefined, options),
  chatCompletionStreamInit: (engine, options) =>
    engine.chat.completions.create({ ...ASK, stream: true }, options),
};

const ENGINES = {
  "an engine": () => connect(silent),
  "an engine that recovers": () => {
    const workers = new Workers(() => undefined);
    return { engine: workers.engine(), received: workers.received };
  },
};

for (const [name, make] of Object.entries(ENGINES)) {
  for (const [kind, ask] of Object.entries(WAYS)) {
    test(`${name}: a signal ends a ${kind}`, async () => {
      const { engine, received } = make();
      const controller = new AbortController();
      const asked = ask(engine, { signal: controller.signal });
      asked.catch(() => {});
      await until(() => kinds(received).includes(kind));
      controller.abort(REASON);
      await assert.rejects(asked, (error) => error === REASON);
      const { uuid } = received.find((each) => each.kind === kind);
      await until(() => received.some((each) => each.kind === "abort" && each.uuid === uuid));
    });

    test(`${name}: a signal that has aborted posts no ${kind}`, async () => {
      const { engine, received } = make();
      await until(() => received.length > 0);
      const asked = ask(engine, { signal: AbortSignal.abort(REASON) });
      await assert.rejects(asked, (error) => error === REASON);
      engine.setLogLevel("DEBUG");
      await until(() => kinds(received).includes("setLogLevel"));
      assert.deepEqual(kinds(received), ["hello", "setLogLevel"]);
    });
  }
}

test("a signal ends a stream, whose waiting next rejects with its reason", async () => {
  const { engine, received } = connect({ ...counting(), completionStreamNextChunk: forever });
  await engine.reload("m");
  const controller = new AbortController();
  const { signal } = controller;
  const stream = await engine.chat.completions.create({ ...ASK, stream: true }, { signal });
  const next = stream.next();
  controller.abort(REASON);
  await assert.rejects(next, (error) => error === REASON);
  assert.deepEqual(await stream.next(), { done: true, value: undefined });
  const { uuid } = received.find(({ kind }) => kind === "chatCompletionStreamInit");
  await until(() => kinds(received).includes("abort"));
  assert.deepEqual(received.at(-1), { kind: "abort", uuid, content: null });
});

test("a stream that nobody waits for rejects at its next pull", async () => {
  const { engine, received } = connect(counting());
  await engine.reload("m");
  const controller = new AbortController();
  const { signal } = controller;
  const stream = await engine.chat.completions.create({ ...ASK, stream: true }, { signal });
  await stream.next();
  controller.abort(REASON);
  await until(() => kinds(received).includes("abort"));
  await assert.rejects(stream.next(), (error) => error === REASON);
});

test("a signal that aborts after the end does nothing", async () => {
  let left = 1;
  const { engine, received } = connect({
    ...counting(),
    completionStreamNextChunk: () => (left-- > 0 ? chunk("a") : undefined),
    chatCompletionNonStreaming: () => ({ choices: [] }),
  });
  await engine.reload("m");
  const controller = new AbortController();
  const { signal } = controller;
  await engine.chat.completions.create(ASK, { signal });
  const ended = await engine.chat.completions.create({ ...ASK, stream: true }, { signal });
  for await (const _ of ended);
  const leaving = await engine.chat.completions.create({ ...ASK, stream: true }, { signal });
  await leaving.return();
  controller.abort(REASON);
  for (const each of [ended, leaving]) {
    assert.deepEqual(await each.next(), { done: true, value: undefined });
  }
  engine.setLogLevel("DEBUG");
  await until(() => kinds(received).includes("setLogLevel"));
  assert.equal(kinds(received).filter((kind) => kind === "abort").length, 1); // of `return()`
});

test("a signal ends what waits for a recovery, and the session", async () => {
  let load;
  const workers = new Workers(
    ({ kind }) => (kind === "reload" || kind.endsWith("Init") ? null : LOST),
    ({ kind }) => (kind === "reload" ? new Promise((resolve) => (load = resolve)) : null),
  );
  const engine = workers.engine();
  await engine.reload("m");
  const controller = new AbortController();
  const { signal } = controller;
  const stream = await engine.completions.create({ prompt: "p", stream: true }, { signal });
  const calls = [
    stream.next(),
    engine.completions.create({ prompt: "p" }, { signal }),
    engine.embeddings.create({ input: "a" }, { signal }),
  ];
  for (const each of calls) each.catch(() => {});
  await until(() => load);
  controller.abort(REASON);
  for (const each of calls) await assert.rejects(each, (error) => error === REASON);
  load(null);
  await until(() => workers.of("deleteResumableSession").length === 2);
  assert.equal(workers.of("completionStreamInit").length, 1);
});

test("a signal ends a stream in the worker that took the place of another", async () => {
  const workers = new Workers(streaming(text("a", [1]), LOST), ({ kind }) =>
    kind.endsWith("NextChunk") ? undefined : null,
  );
  const controller = new AbortController();
  const { signal } = controller;
  const request = { prompt: "p", stream: true };
  const stream = await workers.engine().completions.create(request, { signal });
  await stream.next();
  const next = stream.next();
  await until(() => workers.of("completionStreamNextChunk").length === 3);
  controller.abort(REASON);
  await assert.rejects(next, (error) => error === REASON);
  await until(() => workers.of("deleteResumableSession").length === 1);
  const begun = workers.received.filter(({ kind }) => kind === "completionStreamInit");
  const aborted = workers.received.filter(({ kind }) => kind === "abort");
  assert.deepEqual(aborted.at(-1).uuid, begun[1].uuid);
});

for (const persist of [true, false]) {
  test(`a stream ends in the worker, whenever its signal aborts; kept: ${persist}`, async () => {
    for (let numTurns = 0; numTurns < 30; numTurns += 1) {
      const controller = new AbortController();
      const abortSoon = async () => {
        for (let turn = 0; turn < numTurns; turn += 1) await null;
        controller.abort(REASON);
      };
      const workers = new Workers(({ kind }) => {
        if (kind !== "completionStreamInit") return undefined;
        void abortSoon();
        return null;
      });
      const { signal } = controller;
      const request = { prompt: "p", stream: true };
      const reading = workers.engine({ persist }).completions.create(request, { signal });
      await assert.rejects(
        reading.then((stream) => stream.next()),
        (error) => error === REASON,
      );
      const { uuid } = workers.received.find(({ kind }) => kind === "completionStreamInit");
      const isAbort = (each) => each.kind === "abort" && each.uuid === uuid;
      await until(() => workers.received.some(isAbort));
    }
  });
}

test("a worker of WebLLM's ends all answers, as it can do no other", async () => {
  const { engine, received } = connect({ ...silent, hello: undefined, reload: () => null });
  await engine.reload("m");
  const controller = new AbortController();
  const asked = engine.chat.completions.create(ASK, { signal: controller.signal });
  controller.abort(REASON);
  await assert.rejects(asked, (error) => error === REASON);
  await until(() => kinds(received).includes("interruptGenerate"));
});
