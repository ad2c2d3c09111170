// OpenAI's interface: engine.chat.completions.create(…), completions.create, embeddings.create.

import type * as api from "./api";
import type { RequestOptions } from "./request_options";
import type { ChunkStream } from "./stream";

export interface AnswersChats {
  (
    request: api.ChatCompletionRequestNonStreaming,
    options?: RequestOptions,
  ): Promise<api.ChatCompletion>;
  (
    request: api.ChatCompletionRequestStreaming,
    options?: RequestOptions,
  ): Promise<ChunkStream<api.ChatCompletionChunk>>;
  (
    request: api.ChatCompletionRequestBase,
    options?: RequestOptions,
  ): Promise<api.ChatCompletion | ChunkStream<api.ChatCompletionChunk>>;
}

export interface ContinuesTexts {
  (
    request: api.CompletionCreateParamsNonStreaming,
    options?: RequestOptions,
  ): Promise<api.Completion>;
  (
    request: api.CompletionCreateParamsStreaming,
    options?: RequestOptions,
  ): Promise<ChunkStream<api.Completion>>;
  (
    request: api.CompletionCreateParamsBase,
    options?: RequestOptions,
  ): Promise<api.Completion | ChunkStream<api.Completion>>;
}

export type EmbedsTexts = (
  request: api.EmbeddingRequest,
  options?: RequestOptions,
) => Promise<api.CreateEmbeddingResponse>;

/** `engine.chat` */
export class Chat {
  readonly completions: { readonly create: AnswersChats };

  constructor(engine: { readonly chatCompletion: AnswersChats }) {
    const create = ((request, options) => engine.chatCompletion(request, options)) as AnswersChats;
    this.completions = { create };
  }
}

/** `engine.completions` */
export class Completions {
  readonly create: ContinuesTexts;

  constructor(engine: { readonly completion: ContinuesTexts }) {
    this.create = ((request, options) => engine.completion(request, options)) as ContinuesTexts;
  }
}

/** `engine.embeddings` */
export class Embeddings {
  readonly create: EmbedsTexts;

  constructor(engine: { readonly embedding: EmbedsTexts }) {
    this.create = (request, options) => engine.embedding(request, options);
  }
}
