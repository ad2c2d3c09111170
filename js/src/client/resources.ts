// OpenAI's interface: engine.chat.completions.create(…), completions.create, embeddings.create.

import type * as api from "./api";
import type { ChunkStream } from "./stream";

export interface AnswersChats {
  (request: api.ChatCompletionRequestNonStreaming): Promise<api.ChatCompletion>;
  (request: api.ChatCompletionRequestStreaming): Promise<ChunkStream<api.ChatCompletionChunk>>;
  (
    request: api.ChatCompletionRequestBase,
  ): Promise<api.ChatCompletion | ChunkStream<api.ChatCompletionChunk>>;
}

export interface ContinuesTexts {
  (request: api.CompletionCreateParamsNonStreaming): Promise<api.Completion>;
  (request: api.CompletionCreateParamsStreaming): Promise<ChunkStream<api.Completion>>;
  (request: api.CompletionCreateParamsBase): Promise<api.Completion | ChunkStream<api.Completion>>;
}

export type EmbedsTexts = (request: api.EmbeddingRequest) => Promise<api.CreateEmbeddingResponse>;

/** `engine.chat` */
export class Chat {
  readonly completions: { readonly create: AnswersChats };

  constructor(engine: { readonly chatCompletion: AnswersChats }) {
    const create = ((request) => engine.chatCompletion(request)) as AnswersChats;
    this.completions = { create };
  }
}

/** `engine.completions` */
export class Completions {
  readonly create: ContinuesTexts;

  constructor(engine: { readonly completion: ContinuesTexts }) {
    this.create = ((request) => engine.completion(request)) as ContinuesTexts;
  }
}

/** `engine.embeddings` */
export class Embeddings {
  readonly create: EmbedsTexts;

  constructor(engine: { embedding: EmbedsTexts }) {
    this.create = (request) => engine.embedding(request);
  }
}
