// Shows an answer from Python in this project's own worker. CreateMLCEngine(modelId,
// { root: "/webllm/" }) creates a worker by itself.

import { CreateWebWorkerMLCEngine, type InitProgressReport } from "webllm";

const modelId = "SmolLM2-135M-Instruct";
const appConfig = { model_list: [{ model: "/models/smollm2.gguf", model_id: modelId }] };

function show(text: string): void {
  document.getElementById("text")!.textContent = text;
}

const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
const initProgressCallback = (report: InitProgressReport) => show(report.text);
const engine = await CreateWebWorkerMLCEngine(worker, modelId, { appConfig, initProgressCallback });
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
