// Like the site's worker, but counts the tokens that its model "smollm2" draws. More requests:
// "count" is answered with their number, "echo" with its message, "never" not at all.

import { WorkerHost } from "/host.js";

const SERVE = `
import asyncio
import js
from webllm import MLCEngineConfig
from webllm.workers.browser import BrowserPort
from webllm.workers.handler import MLCEngineHandler


class Tally:
    def __init__(self):
        self.count = 0

    def process_logits(self, logits):
        return logits

    def process_sampled_token(self, token):
        self.count += 1

    def reset_state(self):
        pass


tally = Tally()


async def answer(name, message):
    if name == "never":
        await asyncio.Event().wait()
    return tally.count if name == "count" else message


config = MLCEngineConfig(logit_processor_registry={"smollm2": tally})
handler = MLCEngineHandler(config=config, on_custom_request=answer)
lambda endpoint: handler.serve(BrowserPort(endpoint, js.self.close))
`;

const host = new WorkerHost((message) => self.postMessage(message), SERVE);
self.onmessage = ({ data }) => host.receive(data);
