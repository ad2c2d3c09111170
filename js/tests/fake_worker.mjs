// A worker at the other end of a MessageChannel, under plain Node.

import { afterEach } from "node:test";
import { WebWorkerMLCEngine } from "../dist/client.js";

export const ASK = { messages: [{ role: "user", content: "Hello" }] };
const ports = [];

afterEach(() => ports.splice(0).forEach((port) => port.close()));

/** The client's end of a channel, and the worker's. */
export function channel() {
  const { port1, port2 } = new MessageChannel();
  ports.push(port1, port2);
  return [port1, port2];
}

/** An engine and its worker's received messages. `answers` maps kinds to functions. */
export function connect(answers = {}, config = {}) {
  const [ours, theirs] = channel();
  const received = [];
  const known = { hello: () => ({ protocol: 1 }), reload: () => null, ...answers };
  theirs.onmessage = async ({ data }) => {
    received.push(data);
    const { kind, uuid, content } = data;
    if (!known[kind]) return;
    try {
      const answer = await known[kind](content, theirs, uuid);
      theirs.postMessage({ kind: "return", uuid, content: answer });
    } catch (error) {
      theirs.postMessage({ kind: "throw", uuid, content: String(error), error: error.info });
    }
  };
  return { engine: new WebWorkerMLCEngine(ours, config), received, port: ours };
}

export function chunk(content) {
  return { choices: [{ index: 0, delta: { content }, finish_reason: null }] };
}

/** Streams that never end: "1", "2", … */
export function counting() {
  const counts = new Map();
  return {
    chatCompletionStreamInit: ({ streamId }) => void counts.set(streamId, 0),
    completionStreamNextChunk: ({ streamId }) => {
      counts.set(streamId, counts.get(streamId) + 1);
      return chunk(String(counts.get(streamId)));
    },
  };
}

export function kinds(received) {
  return received.map(({ kind }) => kind);
}

/** Waits until a worker has received a matching message. */
export async function until(condition) {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve));
}
