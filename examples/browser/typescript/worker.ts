// The worker of WebLLM's documentation with only the import changed.

import { WebWorkerMLCEngineHandler } from "webllm";

const handler = new WebWorkerMLCEngineHandler();
self.onmessage = (message: MessageEvent) => handler.onmessage(message);
