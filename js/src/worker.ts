// A Web Worker that serves an engine to the page that made it, whose messages may come before
// Python is there.

import { Prefetch } from "./prefetch";
import { fetchRuntime } from "./runtime_files";
import { Starting } from "./starting";

declare global {
  var webllmPrefetch: Prefetch; // Python's downloads ask it first
}

const early: MessageEvent[] = [];
const files = fetchRuntime();
globalThis.webllmPrefetch = new Prefetch();
const starting = new Starting(webllmPrefetch, files.catalogue, (message) =>
  self.postMessage(message),
);
void files.snapshot.then(() => starting.advance(0.3));
const keep = (event: MessageEvent) => {
  early.push(event);
  starting.heed(event.data ?? {});
};
self.addEventListener("message", keep);

const { boot } = await import("./boot"); // only now: messages come in meanwhile
const python = await boot({ files, onProgress: (part) => starting.advance(0.8 * part) });
await python.runPythonAsync(`
from webllm import WebWorkerMLCEngineHandler

handler = WebWorkerMLCEngineHandler()
`);
starting.advance(1);
self.removeEventListener("message", keep);
for (const { data } of early) self.dispatchEvent(new MessageEvent("message", { data }));
