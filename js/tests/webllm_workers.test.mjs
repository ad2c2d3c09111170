// Streams of WebLLM's own workers, whose versions end one in different ways.

import assert from "node:assert/strict";
import { test } from "node:test";
import * as original from "@mlc-ai/web-llm";
import { WebWorkerMLCEngine } from "../dist/client.js";
import { ASK, channel, chunk, connect, counting, kinds, until } from "./fake_worker.mjs";

/** Begins a stream, leaves it, and returns what the worker received from its begin on. */
async function leave(answers, last) {
  const { engine, received } = connect({ ...counting(), hello: undefined, ...answers });
  await engine.reload("m");
  const stream = await engine.chat.completions.create({ ...ASK, stream: true });
  await stream.next();
  await stream.return(); // waits for no answer of the worker
  await until(() => kinds(received).at(-1) === last);
  const begin = received.findIndex(({ kind }) => kind === "chatCompletionStreamInit");
  return { ends: received.slice(begin + 2), streamId: received[begin].uuid, received };
}

test("one that knows completionStreamReturn ends that stream alone", async () => {
  const completionStreamReturn = (content) => {
    if (content === null) throw new TypeError("reads the streamId of null");
    return new Promise(() => {});
  };
  const { ends, streamId } = await leave({ completionStreamReturn }, "completionStreamReturn");
  assert.deepEqual(
    ends.map(({ kind, content }) => [kind, content]),
    [["completionStreamReturn", { streamId }]],
  );
});

test("one that refuses to end a stream is interrupted", async () => {
  const completionStreamReturn = () => {
    throw new Error("unknown kind");
  };
  const { ends } = await leave({ completionStreamReturn }, "interruptGenerate");
  assert.deepEqual(kinds(ends), ["completionStreamReturn", "interruptGenerate"]);
});

test("one of before 0.2.84 gets the unknown kind without content only, and is interrupted", async () => {
  const { ends, received } = await leave({}, "interruptGenerate");
  assert.deepEqual(kinds(ends), ["interruptGenerate"]);
  const asked = received.filter(({ kind }) => kind === "completionStreamReturn");
  assert.deepEqual(
    asked.map(({ content }) => content),
    [null],
  );
});

test("WebLLM's own handler ends the stream that is left, and no other", async () => {
  const ended = [];
  const [ours, theirs] = channel();
  const handler = new original.WebWorkerMLCEngineHandler();
  handler.postMessage = (message) => theirs.postMessage(message);
  handler.reloadIfUnmatched = async () => {};
  handler.engine.reload = async () => {};
  handler.engine.interruptGenerate = () => ended.push("all");
  handler.engine.chatCompletion = async ({ seed }) => {
    async function* numbers() {
      try {
        for (let number = 1; ; number += 1) yield chunk(String(number));
      } finally {
        ended.push(seed);
      }
    }
    return numbers();
  };
  theirs.onmessage = ({ data }) => handler.onmessage(data);
  const engine = new WebWorkerMLCEngine(ours);
  await engine.reload("m");
  const ask = (seed) => engine.chat.completions.create({ ...ASK, stream: true, seed });
  const [left, read] = [await ask(1), await ask(2)];
  await left.next();
  await read.next();
  await left.return();
  assert.equal((await read.next()).value.choices[0].delta.content, "2");
  await until(() => ended.length > 0);
  assert.deepEqual(ended, [1]);
});
