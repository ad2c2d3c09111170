// `WebWorkerMLCEngine`: WebLLM's engine in front of a worker; it computes nothing.

import type {
  ChatCompletionChunk,
  ChatCompletionRequest,
  CompletionRequest,
  CreateEmbeddingResponse,
  EmbeddingRequest,
  ResumeResult,
} from "./api";
import { Calls, newUuid } from "./calls";
import type { AppConfigLike, InitProgressCallback, MLCEngineConfig } from "./config";
import { toEndpoint, type WorkerLike } from "./endpoint";
import { refuseLogitProcessors, type LogitProcessorRegistry } from "./logit_processor";
import {
  EngineMessages,
  type ChatOptions,
  type LogLevel,
  type ReloadParams,
  type ResumeOptions,
} from "./messages";
import { askToKeepModels } from "./model_store";
import { Chat, Completions, Embeddings } from "./resources";
import type { AnswersChats, ContinuesTexts } from "./resources";
import { ChunkStream } from "./stream";

type StreamKind = "chatCompletionStreamInit" | "completionStreamInit";

/** Every call throws WorkerLostError if the worker is lost. */
export class WebWorkerMLCEngine extends EngineMessages {
  readonly chat: Chat;
  readonly completions: Completions;
  readonly embeddings: Embeddings;
  protected readonly calls: Calls;
  private models: ReloadParams = { modelId: [] }; // that the worker should have loaded
  private onProgress: InitProgressCallback | undefined;

  constructor(worker: WorkerLike, config: MLCEngineConfig = {}) {
    super();
    refuseLogitProcessors(config.logitProcessorRegistry);
    this.chat = new Chat(this);
    this.completions = new Completions(this);
    this.embeddings = new Embeddings(this);
    this.onProgress = config.initProgressCallback;
    this.calls = new Calls(toEndpoint(worker), (report) => this.onProgress?.(report));
    if (config.appConfig) this.setAppConfig(config.appConfig);
    if (config.logLevel) this.setLogLevel(config.logLevel);
  }

  /**
   * Unloads what is loaded, then fetches and loads one or more models. Throws ModelNotLoadedError
   * if `unload` stopped it.
   */
  async reload(modelId: string | string[], chatOpts?: ChatOptions | ChatOptions[]): Promise<void> {
    const options = chatOpts && [chatOpts].flat();
    const models: ReloadParams = {
      modelId: typeof modelId === "string" ? [modelId] : modelId,
      ...(options && { chatOpts: options }),
    };
    const nothing = (this.models = { modelId: [] });
    await this.calls.call("reload", models);
    if (this.models === nothing) this.models = models; // no later `reload` or `unload`
  }

  /** Stops every `reload` that was called before, which throws ModelNotLoadedError, and unloads. */
  async unload(): Promise<void> {
    this.models = { modelId: [] };
    await this.calls.call("unload", null);
  }

  /** Terminates the worker. Waiting calls throw WorkerLostError. */
  terminate(): void {
    this.calls.close();
  }

  readonly chatCompletion = (async (request: ChatCompletionRequest) => {
    if (request.stream) return this.stream("chatCompletionStreamInit", request);
    return this.calls.call("chatCompletionNonStreaming", this.expecting(request));
  }) as AnswersChats;

  readonly completion = (async (request: CompletionRequest) => {
    if (request.stream) return this.stream("completionStreamInit", request);
    return this.calls.call("completionNonStreaming", this.expecting(request));
  }) as ContinuesTexts;

  async embedding(request: EmbeddingRequest): Promise<CreateEmbeddingResponse> {
    return this.calls.call("embedding", this.expecting(request));
  }

  /**
   * Returns a session's text. With `continueGeneration` the worker generates the rest, after loading
   * its model if needed; with `stream` as well, the chunks of the rest are returned, unless the
   * answer has ended already.
   */
  async resumeChatCompletion(
    sessionId: string,
    options: ResumeOptions = {},
  ): Promise<ResumeResult | ChunkStream<ChatCompletionChunk>> {
    if (!options.continueGeneration || !options.stream) {
      return this.calls.call("resumeChatCompletion", { sessionId, options });
    }
    const streamId = newUuid();
    const content = { sessionId, options, streamId };
    const result = await this.calls.call("resumeChatCompletionStreamInit", content, streamId);
    return result ?? new ChunkStream(this.calls, streamId, null);
  }

  /** Empties the worker's journal, except for the sessions whose generation is under way. */
  async deleteAllResumableSessions(): Promise<void> {
    if (this.calls.speaks(3)) return this.calls.call("deleteAllResumableSessions", null);
    for (const { sessionId } of await this.listResumableSessions()) {
      await this.deleteResumableSession(sessionId);
    }
  }

  /** Ends this engine's running answers with finish_reason "abort". */
  interruptGenerate(): void {
    this.calls.notify("interruptGenerate", null);
  }

  /** Calls the `on_custom_request` of the worker's handler. */
  async customRequest(requestName: string, requestMessage?: unknown): Promise<unknown> {
    return this.calls.call("customRequest", { requestName, requestMessage });
  }

  setInitProgressCallback(callback: InitProgressCallback | undefined): void {
    this.onProgress = callback;
  }

  getInitProgressCallback(): InitProgressCallback | undefined {
    return this.onProgress;
  }

  /** Sets the list of models for the next reload, which throws if it is invalid. */
  setAppConfig(appConfig: AppConfigLike): void {
    this.calls.notify("setAppConfig", appConfig);
  }

  /** Throws ConfigError: JavaScript's functions cannot run in a Python worker. */
  setLogitProcessorRegistry(registry?: LogitProcessorRegistry): void {
    refuseLogitProcessors(registry);
  }

  setLogLevel(logLevel: LogLevel): void {
    this.calls.notify("setLogLevel", logLevel);
  }

  /** Begins a stream; the uuid of the message that begins it is its id. */
  private async stream<Chunk>(
    kind: StreamKind,
    request: ChatCompletionRequest | CompletionRequest,
  ): Promise<ChunkStream<Chunk>> {
    const [only, ...others] = this.models.modelId;
    const selectedModelId = request.model ?? (others.length ? null : (only ?? null));
    const streamId = newUuid();
    const content = { ...this.expecting(request), selectedModelId, streamId };
    await this.calls.call(kind, content, streamId);
    return new ChunkStream<Chunk>(this.calls, streamId, selectedModelId);
  }

  /** A restarted worker loads the models that its client expects. */
  private expecting(request: object) {
    return { request: { ...request }, ...this.models };
  }
}

/** The interface of every engine. All engines here run in a worker. */
export type MLCEngineInterface = Pick<WebWorkerMLCEngine, keyof WebWorkerMLCEngine>;

/** Creates an engine in a worker and loads one or more models. */
export async function CreateWebWorkerMLCEngine(
  worker: WorkerLike,
  modelId: string | string[],
  engineConfig?: MLCEngineConfig,
  chatOpts?: ChatOptions | ChatOptions[],
): Promise<WebWorkerMLCEngine> {
  const engine = new WebWorkerMLCEngine(worker, engineConfig);
  askToKeepModels(engineConfig?.appConfig);
  await engine.reload(modelId, chatOpts);
  return engine;
}
