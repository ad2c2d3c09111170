// The worker of webllm's site, except that it counts the tokens of a model called "counted".

import { WorkerHost } from "/host.js";

const SERVE = `
import js
from webllm import MLCEngineConfig
from webllm.workers.browser import BrowserPort
from webllm.workers.handler import MLCEngineHandler

class Counter:
    num_tokens = 0
    def process_logits(self, logits):
        return logits
    def process_sampled_token(self, token):
        self.num_tokens += 1
    def reset_state(self):
        pass

counter = Counter()

async def on_custom_request(name, message):
    return counter.num_tokens

config = MLCEngineConfig(logit_processor_registry={"counted": counter})
handler = MLCEngineHandler(config=config, on_custom_request=on_custom_request)
lambda endpoint: handler.serve(BrowserPort(endpoint, js.self.close))
`;

const host = new WorkerHost((message) => postMessage(message), SERVE);
onmessage = ({ data }) => host.receive(data);
