// Python code that serves all clients of a worker with one engine.

export const SERVE_ALL = `
from webllm.workers.browser_service_worker import ServiceWorkerMLCEngineHandler

ServiceWorkerMLCEngineHandler().serve_endpoint
`;
