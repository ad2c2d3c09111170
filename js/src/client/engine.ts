// `WebWorkerMLCEngine`: WebLLM's engine in front of a worker; it computes nothing.

import { newUuid } from "../../../src/webllm/workers/uuid.js";
import type {
  ChatCompletionChunk,
  ChatCompletionRequest,
  CompletionRequest,
  CreateEmbeddingResponse,
  EmbeddingRequest,
  ResumeResult,
} from "./api";
import { Answers } from "./answers";
import { WorkerChunks } from "./chunks";
import type { AppConfigLike, InitProgressCallback, MLCEngineConfig } from "./config";
import { Connection, type Recovery } from "./connection";
import type { WorkerLike } from "./endpoint";
import { refuseLogitProcessors, type LogitProcessorRegistry } from "./logit_processor";
import {
  EngineMessages,
  type ChatOptions,
  type LogLevel,
  type ReloadParams,
  type ResumeOptions,
} from "./messages";
import { askToKeepModels } from "./model_store";
import type { RequestOptions } from "./request_options";
import { Chat, Completions, Embeddings } from "./resources";
import type { AnswersChats, ContinuesTexts } from "./resources";
import { ChunkStream } from "./stream";

/**
 * Every call throws WorkerLostError if the worker is lost. With a `Recovery` in its place the next
 * worker loads the models again, and each unfinished request is sent again.
 */
export class WebWorkerMLCEngine extends EngineMessages {
  readonly chat: Chat;
  readonly completions: Completions;
  readonly embeddings: Embeddings;
  protected readonly connection: Connection;
  private readonly answers: Answers;
  private onProgress: InitProgressCallback | undefined;

  constructor(worker: WorkerLike | Recovery, config: MLCEngineConfig = {}) {
    super();
    refuseLogitProcessors(config.logitProcessorRegistry);
    this.chat = new Chat(this);
    this.completions = new Completions(this);
    this.embeddings = new Embeddings(this);
    this.onProgress = config.initProgressCallback;
    this.connection = new Connection(worker, (report) => this.onProgress?.(report));
    this.answers = new Answers(this.connection, "open" in worker ? worker.persist : undefined);
    if (config.appConfig) this.setAppConfig(config.appConfig);
    if (config.logLevel) this.setLogLevel(config.logLevel);
  }

  /**
   * Unloads what is loaded, then fetches and loads one or more models. Throws ModelNotLoadedError
   * if `unload` stopped it.
   */
  async reload(
    modelId: string | string[],
    chatOpts?: ChatOptions | ChatOptions[],
    options: RequestOptions = {},
  ): Promise<void> {
    options.signal?.throwIfAborted();
    const chatOptions = chatOpts && [chatOpts].flat();
    const models: ReloadParams = {
      modelId: typeof modelId === "string" ? [modelId] : modelId,
      ...(chatOptions && { chatOpts: chatOptions }),
    };
    const nothing = (this.connection.models = { modelId: [] });
    this.connection.reopen();
    await this.connection.ask((calls) => calls.call("reload", models, options), options);
    if (this.connection.models === nothing) this.connection.models = models; // no later one
  }

  /** Stops every `reload` that was called before, which throws ModelNotLoadedError, and unloads. */
  async unload(): Promise<void> {
    this.connection.models = { modelId: [] };
    await this.connection.unload();
  }

  /** Terminates the worker, or leaves one that others use. Waiting calls throw WorkerLostError. */
  terminate(): void {
    this.answers.close();
  }

  readonly chatCompletion = (async (request: ChatCompletionRequest, options?: RequestOptions) => {
    if (request.stream) return this.answers.stream("chatCompletionStreamInit", request, options);
    return this.answers.whole("chatCompletionNonStreaming", request, options);
  }) as AnswersChats;

  readonly completion = (async (request: CompletionRequest, options?: RequestOptions) => {
    if (request.stream) return this.answers.stream("completionStreamInit", request, options);
    return this.answers.whole("completionNonStreaming", request, options);
  }) as ContinuesTexts;

  async embedding(
    request: EmbeddingRequest,
    options?: RequestOptions,
  ): Promise<CreateEmbeddingResponse> {
    return this.answers.embedding(request, options);
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
      return this.connection.call("resumeChatCompletion", { sessionId, options });
    }
    const uuid = newUuid();
    const content = { sessionId, options, streamId: uuid };
    return this.connection.once(async (calls) => {
      calls.askForStreamReturn();
      const result = await calls.call("resumeChatCompletionStreamInit", content, { uuid });
      return result ?? new ChunkStream(new WorkerChunks(calls, uuid, null));
    });
  }

  /** Empties the worker's journal, except for the sessions whose generation is under way. */
  async deleteAllResumableSessions(): Promise<void> {
    if (this.connection.speaks(3)) {
      return this.connection.call("deleteAllResumableSessions", null);
    }
    for (const { sessionId } of await this.listResumableSessions()) {
      await this.deleteResumableSession(sessionId);
    }
  }

  /** Ends this engine's running answers with finish_reason "abort". */
  interruptGenerate(): void {
    this.answers.interrupt();
  }

  /** Calls the `on_custom_request` of the worker's handler. */
  async customRequest(requestName: string, requestMessage?: unknown): Promise<unknown> {
    return this.connection.call("customRequest", { requestName, requestMessage });
  }

  setInitProgressCallback(callback: InitProgressCallback | undefined): void {
    this.onProgress = callback;
  }

  getInitProgressCallback(): InitProgressCallback | undefined {
    return this.onProgress;
  }

  /** Sets the list of models for the next reload, which throws if it is invalid. */
  setAppConfig(appConfig: AppConfigLike): void {
    this.connection.set("setAppConfig", appConfig);
  }

  /** Throws ConfigError: JavaScript's functions cannot run in a Python worker. */
  setLogitProcessorRegistry(registry?: LogitProcessorRegistry): void {
    refuseLogitProcessors(registry);
  }

  setLogLevel(logLevel: LogLevel): void {
    this.connection.set("setLogLevel", logLevel);
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
