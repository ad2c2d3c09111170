import { ServiceWorkerMLCEngineHandler } from "webllm/service_worker.js";

new ServiceWorkerMLCEngineHandler({ root: "/webllm/" });
