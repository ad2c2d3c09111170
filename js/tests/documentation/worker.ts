// worker.ts of WebLLM's documentation, with only the import changed.

import { WebWorkerMLCEngineHandler } from "webllm";

// A handler that resides in the worker thread
const handler = new WebWorkerMLCEngineHandler();
self.onmessage = (msg: MessageEvent) => {
  handler.onmessage(msg);
};
