// `WebWorkerMLCEngine`: WebLLM's engine in front of a worker; it computes nothing.

import type {
  ChatCompletion,
  ChatCompletionRequest,
  Completion,
  CompletionRequest,
  CreateEmbeddingResponse,
  EmbeddingRequest,
} from "./api";
import { askToKeep } from "./blobs";
import { Calls, newUuid, type Work } from "./calls";
import { toList } from "./config";
import type { AppConfigLike, InitProgressCallback, MLCEngineConfig } from "./config";
import { toEndpoint, type WorkerLike } from "./endpoint";
import { refuseLogitProcessors, type LogitProcessorRegistry } from "./logit_processor";
import type { ChatOptions, LogLevel, ReloadParams, StreamInitParams } from "./messages";
import { Chat, Completions, Embeddings } from "./resources";
import type { AnswersChats, ContinuesTexts } from "./resources";
import { ChunkStream } from "./stream";

type Unsent = Work extends infer Kind ? (Kind extends Work ? Omit<Kind, "uuid"> : never) : never;
const DEVICE_NAME_SINCE = 2; // protocol version

type StreamKind = "chatCompletionStreamInit" | "completionStreamInit";

/** Every call throws WorkerLostError if the worker is lost. */
export class WebWorkerMLCEngine {
  readonly chat: Chat;
  readonly completions: Completions;
  readonly embeddings: Embeddings;
  private readonly calls: Calls;
  private models: ReloadParams = { modelId: [] }; // what the worker should have loaded
  private onProgress: InitProgressCallback | undefined;

  constructor(worker: WorkerLike, config: MLCEngineConfig = {}) {
    refuseLogitProcessors(config.logitProcessorRegistry);
    this.chat = new Chat(this);
    this.completions = new Completions(this);
    this.embeddings = new Embeddings(this);
    this.onProgress = config.initProgressCallback;
    this.calls = new Calls(toEndpoint(worker), (report) => this.onProgress?.(report));
    if (config.appConfig) this.setAppConfig(config.appConfig);
    if (config.logLevel) this.setLogLevel(config.logLevel);
  }

  /** Unloads what is loaded, then fetches and loads one or more models. */
  async reload(modelId: string | string[], chatOpts?: ChatOptions | ChatOptions[]): Promise<void> {
    const options = toList(chatOpts);
    const models: ReloadParams = {
      modelId: typeof modelId === "string" ? [modelId] : modelId,
      ...(options && { chatOpts: options }),
    };
    this.models = { modelId: [] };
    await this.call({ kind: "reload", content: models });
    this.models = models;
  }

  async unload(): Promise<void> {
    this.models = { modelId: [] };
    await this.call({ kind: "unload", content: null });
  }

  /** Terminates the worker. Waiting calls throw WorkerLostError. */
  terminate(): void {
    this.calls.close();
  }

  readonly chatCompletion = (async (request: ChatCompletionRequest) => {
    if (request.stream) return this.stream("chatCompletionStreamInit", request);
    const content = this.expecting(request);
    return (await this.call({ kind: "chatCompletionNonStreaming", content })) as ChatCompletion;
  }) as AnswersChats;

  readonly completion = (async (request: CompletionRequest) => {
    if (request.stream) return this.stream("completionStreamInit", request);
    const content = this.expecting(request);
    return (await this.call({ kind: "completionNonStreaming", content })) as Completion;
  }) as ContinuesTexts;

  async embedding(request: EmbeddingRequest): Promise<CreateEmbeddingResponse> {
    const content = this.expecting(request);
    return (await this.call({ kind: "embedding", content })) as CreateEmbeddingResponse;
  }

  /** Ends every running answer with finish_reason "abort". */
  interruptGenerate(): void {
    this.tell({ kind: "interruptGenerate", content: null });
  }

  async resetChat(keepStats = false, modelId?: string): Promise<void> {
    await this.call({ kind: "resetChat", content: { keepStats, ...named(modelId) } });
  }

  /** The text of the last answer. */
  async getMessage(modelId?: string): Promise<string> {
    return (await this.call({ kind: "getMessage", content: named(modelId) })) as string;
  }

  async runtimeStatsText(modelId?: string): Promise<string> {
    return (await this.call({ kind: "runtimeStatsText", content: named(modelId) })) as string;
  }

  async forwardTokensAndSample(
    inputIds: number[],
    isPrefill: boolean,
    modelId?: string,
  ): Promise<number> {
    const content = { inputIds, isPrefill, ...named(modelId) };
    return (await this.call({ kind: "forwardTokensAndSample", content })) as number;
  }

  /** Describes the device that runs the model; "" if the worker does not know. */
  async getDeviceName(modelId?: string): Promise<string> {
    if (!this.calls.speaks(DEVICE_NAME_SINCE)) return "";
    return (await this.call({ kind: "getDeviceName", content: named(modelId) })) as string;
  }

  /** Throws DeviceNotFoundError where the worker has no GPU. */
  async getGPUVendor(): Promise<string> {
    return (await this.call({ kind: "getGPUVendor", content: null })) as string;
  }

  async getMaxStorageBufferBindingSize(): Promise<number> {
    const kind = "getMaxStorageBufferBindingSize";
    return (await this.call({ kind, content: null })) as number;
  }

  /** Calls the `on_custom_request` of the worker's handler. */
  async customRequest(requestName: string, requestMessage?: unknown): Promise<unknown> {
    return this.call({ kind: "customRequest", content: { requestName, requestMessage } });
  }

  setInitProgressCallback(callback: InitProgressCallback | undefined): void {
    this.onProgress = callback;
  }

  getInitProgressCallback(): InitProgressCallback | undefined {
    return this.onProgress;
  }

  /** Sets the list of models for the next reload, which throws if it is invalid. */
  setAppConfig(appConfig: AppConfigLike): void {
    this.tell({ kind: "setAppConfig", content: appConfig });
  }

  /** Throws ConfigError: JavaScript's functions cannot run in a Python worker. */
  setLogitProcessorRegistry(registry?: LogitProcessorRegistry): void {
    refuseLogitProcessors(registry);
  }

  setLogLevel(logLevel: LogLevel): void {
    this.tell({ kind: "setLogLevel", content: logLevel });
  }

  /** Begins a stream; the uuid of the message that begins it is its id. */
  private async stream<Chunk>(
    kind: StreamKind,
    request: ChatCompletionRequest | CompletionRequest,
  ): Promise<ChunkStream<Chunk>> {
    const [only, ...others] = this.models.modelId;
    const selectedModelId = request.model ?? (others.length ? null : (only ?? null));
    const streamId = newUuid();
    const content: StreamInitParams = { ...this.expecting(request), selectedModelId, streamId };
    await this.calls.call({ kind, uuid: streamId, content });
    return new ChunkStream<Chunk>(this.calls, streamId, selectedModelId);
  }

  /** A restarted worker loads the models that its client expects. */
  private expecting(request: object) {
    return { request: { ...request }, ...this.models };
  }

  private call(request: Unsent): Promise<unknown> {
    return this.calls.call({ ...request, uuid: newUuid() });
  }

  private tell(request: Unsent): void {
    this.calls.tell({ ...request, uuid: newUuid() });
  }
}

/** The interface of every engine. All engines here run in a worker. */
export type MLCEngineInterface = Pick<WebWorkerMLCEngine, keyof WebWorkerMLCEngine>;

function named(modelId: string | undefined): { modelId?: string } {
  return modelId === undefined ? {} : { modelId };
}

/** Creates an engine in a worker and loads one or more models. */
export async function CreateWebWorkerMLCEngine(
  worker: WorkerLike,
  modelId: string | string[],
  engineConfig?: MLCEngineConfig,
  chatOpts?: ChatOptions | ChatOptions[],
): Promise<WebWorkerMLCEngine> {
  const engine = new WebWorkerMLCEngine(worker, engineConfig);
  askToKeep(engineConfig?.appConfig);
  await engine.reload(modelId, chatOpts);
  return engine;
}
