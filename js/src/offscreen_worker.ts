// The Web Worker of an extension's offscreen document, which serves all of the extension's clients. Its
// name is that of their channel.

import { serveChannel } from "./shared_clients";

// An answer whose popup was closed goes on for as long.
serveChannel(`
from webllm.workers.browser_service_worker import ServiceWorkerMLCEngineHandler

ServiceWorkerMLCEngineHandler(grace_s=3600).serve_endpoint
`);
