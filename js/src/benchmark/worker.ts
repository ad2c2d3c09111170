// Like worker.ts of the site, on the device and with the threads that its URL asks for. Says when
// it can be asked, and answers what only a benchmark asks: the device's name, and to forget a model.

import { boot } from "../boot";

const SERVE = `
from webllm import MLCEngineConfig, WebWorkerMLCEngineHandler
from webllm.artifacts import browser, browser_store


async def forget(source):
    remote = browser._remote(source)
    name = browser._name(browser._url(remote), remote.sha256)
    await browser_store.open_store(None).delete(name)


def serve(device, num_threads):
    async def answer(name, message):
        if name == "forget":
            return await forget(message)
        return handler.engine.device_name()

    config = MLCEngineConfig(device=device, num_threads=num_threads)
    handler = WebWorkerMLCEngineHandler(config=config, on_custom_request=answer)


serve
`;

const asked = new URL(self.location.href).searchParams;
const python = await boot();
const serve = python.runPython(SERVE) as (device: string, numThreads: number) => void;
serve(asked.get("device") ?? "auto", Number(asked.get("threads") ?? 1));
self.postMessage("ready");
