// Compiled, never run: the forms in which WebLLM's examples and documentation use it.

import * as webllm from "webllm";

/** Does not compile unless the two are the same type. */
function same<A>() {
  return <B>(..._proof: [A] extends [B] ? ([B] extends [A] ? [] : [never]) : [never]) => {};
}

const messages: webllm.ChatCompletionMessageParam[] = [
  { role: "system", content: "Be brief." },
  { role: "user", content: "Hello" },
];

export async function wholeAnswers(engine: webllm.MLCEngineInterface): Promise<string> {
  const request: webllm.ChatCompletionRequest = { messages, n: 1, temperature: 0 };
  const reply0 = await engine.chat.completions.create(request);
  const reply1 = await engine.chat.completions.create({ messages, stream: false });
  const reply2 = await engine.chatCompletion({ messages });
  same<webllm.ChatCompletion>()<typeof reply0>();
  same<webllm.ChatCompletion>()<typeof reply1>();
  same<webllm.ChatCompletion>()<typeof reply2>();
  const text = await engine.completions.create({ prompt: "Once", echo: true });
  same<webllm.Completion>()<typeof text>();
  const embedded = await engine.embeddings.create({ input: ["a", "b"] });
  const [first] = embedded.data;
  const choice: webllm.ChatCompletion.Choice | undefined = reply0.choices[0];
  return `${choice?.message.content} ${first?.embedding[0]} ${reply1.usage?.total_tokens}`;
}

export async function streams(engine: webllm.MLCEngineInterface): Promise<string> {
  const request: webllm.ChatCompletionRequest = {
    stream: true,
    stream_options: { include_usage: true },
    messages,
    logprobs: true,
    top_logprobs: 2,
  };
  let text = "";
  const chunks = await engine.chat.completions.create(request);
  for await (const chunk of chunks) {
    same<webllm.ChatCompletionChunk>()<typeof chunk>();
    text += chunk.choices[0]?.delta.content ?? "";
    if (chunk.usage) console.log(chunk.usage.extra.decode_tokens_per_s);
  }
  for await (const chunk of await engine.completions.create({ prompt: "Once", stream: true })) {
    text += chunk.choices[0]?.text ?? "";
  }
  const streaming: webllm.ChatCompletionRequestStreaming = { messages, stream: true };
  for await (const chunk of await engine.chatCompletion(streaming)) text += chunk.id;
  // @ts-expect-error: not a stream
  for await (const _ of await engine.chat.completions.create({ messages })) break;
  return text;
}

/** A request whose `stream` is known only at run time: either result is possible. */
export async function either(engine: webllm.MLCEngineInterface, stream: boolean): Promise<string> {
  const request: webllm.ChatCompletionRequestBase = { messages, stream };
  const reply = await engine.chat.completions.create(request);
  if ("choices" in reply) return reply.choices[0]?.message.content ?? "";
  for await (const chunk of reply) return chunk.id;
  return "";
}

export async function functionCalls(engine: webllm.MLCEngineInterface): Promise<string> {
  const tools: webllm.ChatCompletionTool[] = [
    {
      type: "function",
      function: {
        name: "get_current_weather",
        parameters: { type: "object", properties: { location: { type: "string" } } },
      },
    },
  ];
  const history: webllm.ChatCompletionMessageParam[] = [...messages];
  const request: webllm.ChatCompletionRequest = { messages: history, tools, tool_choice: "auto" };
  const reply = await engine.chat.completions.create(request);
  const message = reply.choices[0]?.message;
  const calls: webllm.ChatCompletionMessageToolCall[] = message?.tool_calls ?? [];
  history.push({ role: "assistant", content: message?.content ?? null, tool_calls: calls });
  for (const { id } of calls) history.push({ role: "tool", tool_call_id: id, content: "Sunny" });
  // @ts-expect-error: has no id of the call that it answers
  history.push({ role: "tool", content: "Sunny" });
  const choice: webllm.ChatCompletionToolChoiceOption = {
    type: "function",
    function: { name: "f" },
  };
  return `${webllm.functionCallingModelIds.length} ${JSON.stringify(choice)}`;
}

export function history(said: webllm.ChatCompletionMessageParam[]) {
  return said.map((message) =>
    message.role === "assistant"
      ? { ...message, content: message.content?.replace(/<think>.*?<\/think>/s, "") ?? "" }
      : message,
  ) satisfies webllm.ChatCompletionMessageParam[];
}

export function images(url: string): webllm.ChatCompletionRequest {
  const parts: webllm.ChatCompletionContentPart[] = [
    { type: "text", text: "Describe the image" },
    { type: "image_url", image_url: { url, detail: "low" } },
    { type: "input_audio", input_audio: { data: "UklGRg==", format: "wav" } },
  ];
  for (const part of parts) if (part.type === "text") same<string>()<typeof part.text>();
  return { messages: [{ role: "user", content: parts }] };
}

export function formats(schema: object): webllm.ChatCompletionRequest[] {
  const format: webllm.ResponseFormat = { type: "json_object", schema: JSON.stringify(schema) };
  return [
    { messages, response_format: format },
    { messages, response_format: { type: "grammar", grammar: 'root ::= "a"' } },
    { messages, response_format: { type: "structural_tag", structural_tag: { format: schema } } },
    { messages, extra_body: { enable_thinking: false, enable_latency_breakdown: true } },
    // @ts-expect-error: a name that is spelled wrong
    { mesages: messages },
  ];
}

export async function latencies(engine: webllm.MLCEngineInterface): Promise<number | undefined> {
  const reply = await engine.chat.completions.create({ messages });
  return reply.usage?.extra.latencyBreakdown?.["logitProcessorTime"]?.[0];
}

export async function severalModels(worker: Worker): Promise<void> {
  const options: webllm.ChatOptions[] = [
    { context_window_size: 2048 },
    { sliding_window_size: -1 },
  ];
  const engine = await webllm.CreateWebWorkerMLCEngine(worker, ["a", "b"], {}, options);
  await engine.chat.completions.create({ messages, model: "b" });
  await engine.resetChat(false, "b");
  await engine.reload(["a", "b"], options);
  await engine.unload();
}

export async function stores(): Promise<boolean> {
  const appConfig = webllm.prebuiltAppConfig;
  appConfig.cacheBackend = "indexeddb";
  const ids: string[] = appConfig.model_list.map((model) => model.model_id);
  const mode: webllm.OPFSAccessMode = "auto";
  const own: webllm.AppConfig = {
    cacheBackend: "opfs",
    opfsAccessMode: mode,
    model_list: [
      {
        model: "https://huggingface.co/owner/model",
        model_id: "own",
        model_lib: webllm.modelLibURLPrefix + webllm.modelVersion + "/model.wasm",
        model_type: webllm.ModelType.LLM,
        low_resource_required: true,
        overrides: { context_window_size: 2048 },
        integrity: { config: "sha256-", tokenizer: { "tokenizer.json": "sha384-" } },
      },
    ],
  };
  await webllm.deleteModelAllInfoInCache(ids[0] ?? "", appConfig);
  return webllm.hasModelInCache("own", own);
}

/** The page "Advanced usage" of the documentation, as it was and as it is. */
export async function documented(): Promise<webllm.MLCEngine[]> {
  const models = [{ model_id: "Llama-3.1-8B", model_path: "/models/llama3" }];
  return [
    await webllm.CreateMLCEngine("Llama-3.1-8B-Instruct", {
      appConfig: {
        useIndexedDB: true,
        models: [{ model_id: "Llama-3.1-8B", model_path: "/models/llama3" }],
      },
    }),
    await webllm.CreateMLCEngine("Llama-3.1-8B", { appConfig: { cacheBackend: "opfs", models } }),
    await webllm.CreateMLCEngine("Llama-3.1-8B", { appConfig: { useIndexedDBCache: true } }),
    // @ts-expect-error: there is no such store
    await webllm.CreateMLCEngine("Llama-3.1-8B", { appConfig: { cacheBackend: "bogus" } }),
  ];
}

export function templates(): webllm.ChatOptions {
  const template: webllm.ConvTemplateConfig = {
    system_template: "{system_message}",
    system_message: "",
    roles: { user: "USER", assistant: "ASSISTANT" },
    seps: ["\n"],
    stop_str: ["USER"],
    stop_token_ids: [2],
  };
  return { conv_template: template, conv_config: { system_message: "Be brief." } };
}

class OnlyOneToken implements webllm.LogitProcessor {
  processLogits(logits: Float32Array): Float32Array {
    return logits.fill(-100).fill(100, 7, 8);
  }
  processSampledToken(_token: number): void {}
  resetState(): void {}
}

/** Compiles, and throws ConfigError: a worker that runs Python runs no JavaScript of a page. */
export function logitProcessors(engine: webllm.MLCEngine): webllm.MLCEngine {
  const logitProcessorRegistry = new Map<string, webllm.LogitProcessor>();
  logitProcessorRegistry.set("m", new OnlyOneToken());
  engine.setLogitProcessorRegistry(logitProcessorRegistry);
  return new webllm.MLCEngine({ logitProcessorRegistry });
}

export async function errors(engine: webllm.MLCEngineInterface, data: ArrayBuffer) {
  const sri: webllm.SRIString = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
  try {
    await engine.reload("m");
    if (webllm.isValidSRI(sri)) await webllm.verifyIntegrity(data, sri, "https://site/m", "warn");
  } catch (error) {
    if (error instanceof webllm.IntegrityError) {
      return `${error.url}: ${error.expected}, not ${error.actual}`;
    }
    if (error instanceof webllm.WebLLMError) return error.code;
  }
  return undefined;
}

export const generation: webllm.GenerationConfig = {
  temperature: 0.5,
  stop: ["\n"],
  logit_bias: { "50256": -100 },
  enable_thinking: false,
};

/** OpenAI's resources are classes, over any engine. */
export function resources(engine: webllm.MLCEngineInterface) {
  const { Chat, Completions, Embeddings } = webllm;
  return [new Chat(engine), new Completions(engine), new Embeddings(engine)] as const;
}

/** An answer that outlives its worker, read on as WebLLM's documentation does. */
export async function resumed(engine: webllm.MLCEngineInterface, sessionId: string) {
  const resumable: webllm.ResumableGenerationConfig = { enabled: true, sessionId };
  await engine.chat.completions.create({ messages, stream: true, extra_body: { resumable } });
  const sessions: webllm.ResumeProbeResult[] = await engine.listResumableSessions();
  const open = sessions.filter((session) => session.resumable && session.recoveryMode !== "none");
  const options: webllm.ResumeChatCompletionOptions = { continueGeneration: true, stream: true };
  let text = "";
  for (const session of open) {
    const reply = await engine.resumeChatCompletion(session.sessionId, options);
    if ("recoveredText" in reply) text += (reply satisfies webllm.ResumeResult).recoveredText;
    else for await (const chunk of reply) text += chunk.choices[0]?.delta.content ?? "";
    await engine.deleteResumableSession(session.sessionId);
  }
  await engine.deleteAllResumableSessions();
  return text;
}

/** The engine that all pages of a site share. */
export async function shared(): Promise<webllm.ServiceWorkerMLCEngine> {
  const initProgressCallback = (report: webllm.InitProgressReport) => console.log(report.text);
  const engine = new webllm.ServiceWorkerMLCEngine({ host: "tab", root: "/w/", persist: false });
  await engine.ready;
  await engine.reload("m");
  const host: webllm.EngineHost | "" = engine.host;
  const missed: number = engine.missedHeartbeat + engine.missedHeatbeat;
  const config: webllm.ServiceWorkerEngineConfig = { initProgressCallback, logLevel: "INFO" };
  // @ts-expect-error: there is no such home
  await webllm.CreateServiceWorkerMLCEngine("m", { host: "daemon" });
  console.log(host, missed);
  return webllm.CreateServiceWorkerMLCEngine("m", config, { temperature: 0 }, 5000);
}

/** A recovery of the page's own. */
export function recovering(script: URL): webllm.WebWorkerMLCEngine {
  const open = () => webllm.workerEndpoint(new Worker(script, { type: "module" }));
  const recovery: webllm.Recovery = { open, persist: true };
  return new webllm.WebWorkerMLCEngine(recovery);
}

/** OpenAI's options beside a request. */
export async function aborted(engine: webllm.MLCEngineInterface, signal: AbortSignal | null) {
  const options: webllm.RequestOptions = { signal };
  await engine.reload("m", undefined, options);
  const reply = await engine.chat.completions.create({ messages }, { signal });
  same<webllm.ChatCompletion>()<typeof reply>();
  for await (const chunk of await engine.completions.create(
    { prompt: "p", stream: true },
    options,
  )) {
    same<webllm.Completion>()<typeof chunk>();
  }
  await engine.chatCompletion({ messages, stream: true }, options);
  return engine.embeddings.create({ input: "a" }, { signal: AbortSignal.timeout(1000) });
}

export type Others = [
  webllm.WorkerRequest,
  webllm.WorkerResponse,
  webllm.CustomRequestParams,
  webllm.ModelPackageManifest,
  webllm.CompiledProgramArtifact,
  webllm.ChatCompletionAudioInputPCM,
  webllm.ChatCompletionChunk.Choice,
  webllm.CreateEmbeddingResponse.Usage,
];
