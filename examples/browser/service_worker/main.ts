// Shows an answer of the engine that all tabs of this site share. It survives reloads of the page.

import { CreateServiceWorkerMLCEngine, type InitProgressReport } from "webllm";

const modelId = "SmolLM2-135M-Instruct";
const appConfig = { model_list: [{ model: "/models/smollm2.gguf", model_id: modelId }] };

function show(text: string): void {
  document.getElementById("text")!.textContent = text;
}

void navigator.serviceWorker.register(new URL("sw.ts", import.meta.url), { type: "module" });
const initProgressCallback = (report: InitProgressReport) => show(report.text);
const engine = await CreateServiceWorkerMLCEngine(modelId, { appConfig, initProgressCallback });
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
