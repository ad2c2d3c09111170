// OpenAI's way to ask: engine.chat.completions.create(…), completions.create, embeddings.create.

import type {
  ChatCompletion,
  ChatCompletionChunk,
  ChatCompletionRequest,
  Completion,
  CompletionRequest,
  CreateEmbeddingResponse,
  EmbeddingRequest,
} from "./api";
import type * as requests from "./requests";
import type { ChunkStream } from "./stream";

export interface AnswersChats {
  (request: requests.ChatCompletionRequestNonStreaming): Promise<ChatCompletion>;
  (request: requests.ChatCompletionRequestStreaming): Promise<ChunkStream<ChatCompletionChunk>>;
  (request: ChatCompletionRequest): Promise<ChatCompletion | ChunkStream<ChatCompletionChunk>>;
}

export interface ContinuesTexts {
  (request: requests.CompletionCreateParamsNonStreaming): Promise<Completion>;
  (request: requests.CompletionCreateParamsStreaming): Promise<ChunkStream<Completion>>;
  (request: CompletionRequest): Promise<Completion | ChunkStream<Completion>>;
}

export type EmbedsTexts = (request: EmbeddingRequest) => Promise<CreateEmbeddingResponse>;

export interface Chat {
  readonly completions: { readonly create: AnswersChats };
}

export interface Completions {
  readonly create: ContinuesTexts;
}

export interface Embeddings {
  readonly create: EmbedsTexts;
}
