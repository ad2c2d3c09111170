// The example of WebLLM's documentation with only the import changed. The answer comes from Python
// in a Web Worker.

import * as webllm from "webllm";

const modelId = "SmolLM2-135M-Instruct";
const appConfig = { model_list: [{ model: "/models/smollm2.gguf", model_id: modelId }] };

function show(text: string): void {
  document.getElementById("text")!.textContent = text;
}

const engine: webllm.MLCEngineInterface = await webllm.CreateWebWorkerMLCEngine(
  new Worker(new URL("./worker.js", import.meta.url), { type: "module" }),
  modelId,
  { initProgressCallback: (report: webllm.InitProgressReport) => show(report.text), appConfig },
);
const chunks = await engine.chat.completions.create({
  messages: [{ role: "user", content: "Name three colours." }],
  temperature: 0,
  max_tokens: 40,
  stream: true,
});
let reply = "";
for await (const chunk of chunks) {
  reply += chunk.choices[0]?.delta.content ?? "";
  show(reply);
}
