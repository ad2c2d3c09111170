// A Web Worker that serves an engine to the page that made it, whose messages may come before
// Python is there.

import { boot } from "./boot";

const early: MessageEvent[] = [];
const keep = (event: MessageEvent) => void early.push(event);
self.addEventListener("message", keep);

const python = await boot();
await python.runPythonAsync(`
from webllm import WebWorkerMLCEngineHandler

handler = WebWorkerMLCEngineHandler()
`);
self.removeEventListener("message", keep);
for (const { data } of early) self.dispatchEvent(new MessageEvent("message", { data }));
