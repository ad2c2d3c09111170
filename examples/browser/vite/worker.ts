import { WebWorkerMLCEngineHandler } from "webllm";

const handler = new WebWorkerMLCEngineHandler({ root: "/webllm/" });
self.onmessage = (message: MessageEvent) => handler.onmessage(message);
