// Compiled, never run: a page written for WebLLM, with only the import changed.

import * as webllm from "webllm";

export async function main(show: (text: string) => void): Promise<string> {
  const initProgressCallback = (report: webllm.InitProgressReport) => show(report.text);
  const engine: webllm.MLCEngineInterface = await webllm.CreateWebWorkerMLCEngine(
    new Worker(new URL("./worker.ts", import.meta.url), { type: "module" }),
    "SmolLM2-135M-Instruct",
    { initProgressCallback, appConfig: webllm.prebuiltAppConfig, logLevel: "INFO" },
    { context_window_size: 2048 },
  );
  const request: webllm.ChatCompletionRequest = {
    messages: [
      { role: "system", content: "You are a pirate chatbot." },
      { role: "user", content: "Name three states." },
    ],
    logit_bias: { "50256": -100 },
    seed: 1,
  };
  const reply: webllm.ChatCompletion = await engine.chat.completions.create({
    ...request,
    stream: false,
  });
  show(reply.choices[0]?.message.content ?? "");
  const chunks = await engine.chat.completions.create({
    ...request,
    stream: true,
    stream_options: { include_usage: true },
  });
  for await (const chunk of chunks) {
    show(chunk.choices[0]?.delta.content ?? "");
    if (chunk.usage) show(`${chunk.usage.extra.decode_tokens_per_s}`);
  }
  engine.interruptGenerate();
  await engine.reload("gemma-3-270m");
  return engine.getMessage();
}
