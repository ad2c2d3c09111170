// A Service Worker whose Python code takes custom requests and soon forgets pages that are closed.

import { ServiceWorkerMLCEngineHandler } from "/service_worker.js";

const python = `
from webllm import ServiceWorkerMLCEngineHandler

async def echo(name, message):
    return [name, message]

ServiceWorkerMLCEngineHandler(on_custom_request=echo, grace_s=0.1).serve_endpoint
`;
new ServiceWorkerMLCEngineHandler({ root: "/", python });
