// Like worker.ts of the site, on the device and with the threads that its URL asks for. It has two
// more requests: "boot" is answered once Python runs, "forget" deletes a model from the store.

import { WorkerHost } from "../worker_host";

const asked = new URL(self.location.href).searchParams;
const device = JSON.stringify(asked.get("device"));
const numThreads = Number(asked.get("threads"));

const SERVE = `
import js
from webllm import MLCEngineConfig
from webllm.artifacts.auto import delete_model
from webllm.workers.browser import BrowserPort
from webllm.workers.handler import MLCEngineHandler


async def answer(name, message):
    if name == "forget":
        await delete_model(message, None)


def serve(endpoint):
    config = MLCEngineConfig(device=${device}, num_threads=${numThreads})
    handler = MLCEngineHandler(config=config, on_custom_request=answer)
    handler.serve(BrowserPort(endpoint, js.self.close))


serve
`;

const host = new WorkerHost((message) => self.postMessage(message), SERVE);
self.onmessage = ({ data }: MessageEvent) => host.receive(data);
