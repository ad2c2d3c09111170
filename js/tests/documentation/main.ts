// main.ts of WebLLM's documentation, with only the import changed; it shows what comes.

import * as webllm from "webllm";

const selectedModel = "SmolLM2-135M-Instruct";
const record = { model: "/models/smollm2.gguf", model_id: selectedModel, model_lib: "" };
const appConfig: webllm.AppConfig = { model_list: [record] };

function setLabel(id: string, text: string): void {
  document.getElementById(id)!.textContent = text;
}

const initProgressCallback = (report: webllm.InitProgressReport) => {
  const label = document.getElementById("init-label")!;
  label.dataset.reports = `${label.dataset.reports ?? ""} ${report.progress}`;
  setLabel("init-label", report.text);
};

async function stream(engine: webllm.MLCEngineInterface, max_tokens: number): Promise<string> {
  const messages: webllm.ChatCompletionMessageParam[] = [
    { role: "system", content: "You are a helpful AI assistant." },
    { role: "user", content: "Name three colours." },
  ];
  const request = { messages, temperature: 0, max_tokens, ignore_eos: true };
  const chunks = await engine.chat.completions.create({
    ...request,
    stream: true,
    stream_options: { include_usage: true },
  });
  let reply = "";
  for await (const chunk of chunks) {
    reply += chunk.choices[0]?.delta.content || "";
    setLabel("generate-label", reply);
    if (chunk.choices[0]?.finish_reason) setLabel("reason", chunk.choices[0].finish_reason);
    if (chunk.usage) setLabel("usage", JSON.stringify(chunk.usage));
  }
  return reply;
}

async function main(): Promise<void> {
  const engine: webllm.MLCEngineInterface = await webllm.CreateWebWorkerMLCEngine(
    new Worker(new URL("./worker.ts", import.meta.url), { type: "module" }),
    selectedModel,
    { initProgressCallback, appConfig },
  );
  document.getElementById("stop")!.addEventListener("click", () => engine.interruptGenerate());
  setLabel("first", await stream(engine, 12));
  setLabel("message", await engine.getMessage());
  setLabel("stats", await engine.runtimeStatsText());
  setLabel("interrupted", await stream(engine, 4000));
}

main();
