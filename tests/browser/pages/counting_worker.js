// A worker of plain Pyodide that counts its model's tokens, and can be limited to one token.

import { loadPyodide } from "/pyodide/pyodide.mjs";

const early = [];
onmessage = (event) => early.push(event.data);

const python = await loadPyodide();
await python.loadPackage("micropip");
await python.runPythonAsync(`
import micropip
await micropip.install("/wheels/webllm-0.1.0-py3-none-any.whl")

from webllm import MLCEngineConfig, WebWorkerMLCEngineHandler

class Only:
    """Counts tokens; allows no other than self.token, if that is set."""
    def __init__(self):
        self.token, self.count = None, 0
    def process_logits(self, logits):
        if self.token is not None:
            logits[self.token] = 1e9
        return logits
    def process_sampled_token(self, token):
        self.count += 1
    def reset_state(self):
        pass

only = Only()

async def on_custom_request(name, message):
    if name == "only":
        only.token = message
    return only.count

handler = WebWorkerMLCEngineHandler(
    config=MLCEngineConfig(logit_processor_registry={"smollm2": only}),
    on_custom_request=on_custom_request,
)
`);
onmessage = null;
for (const data of early) dispatchEvent(new MessageEvent("message", { data }));
