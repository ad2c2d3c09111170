// A Web Worker that runs Python with an engine.

import { loadPyodide } from "./pyodide/pyodide.mjs";

const early = [];
onmessage = (event) => early.push(event.data); // messages that arrive before Python has started

const python = await loadPyodide();
await python.loadPackage("micropip");
await python.runPythonAsync(`
import micropip
await micropip.install("./wheels/webllm-0.1.0-py3-none-any.whl")

from webllm import WebWorkerMLCEngineHandler
handler = WebWorkerMLCEngineHandler()
`);
onmessage = null;
for (const data of early) dispatchEvent(new MessageEvent("message", { data }));
