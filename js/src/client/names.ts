// WebLLM's other names for what has a name already.

import type {
  ChatCompletionMessageParam,
  ChatCompletionNamedToolChoice,
  ChatCompletionRequest,
  Choice,
  CompletionRequest,
  EmbeddingRequest,
  FunctionDefinition,
} from "./api";
import type { AnyAnswer, AnyRequest } from "./messages";

export type ChatCompletionRequestBase = ChatCompletionRequest;
export type ChatCompletionRole = ChatCompletionMessageParam["role"];
export type ChatCompletionSystemMessageParam = ChatCompletionMessageParam & { role: "system" };
export type ChatCompletionUserMessageParam = ChatCompletionMessageParam & { role: "user" };
export type ChatCompletionAssistantMessageParam = ChatCompletionMessageParam & {
  role: "assistant";
};
export type ChatCompletionToolMessageParam = ChatCompletionMessageParam & { role: "tool" };
export type ChatCompletionToolChoiceOption = "none" | "auto" | ChatCompletionNamedToolChoice;
export type ChatCompletionFinishReason = Choice["finish_reason"];
export type FunctionParameters = NonNullable<FunctionDefinition["parameters"]>;
export type CompletionCreateParams = CompletionRequest;
export type CompletionCreateParamsBase = CompletionRequest;
export type EmbeddingCreateParams = EmbeddingRequest;
export type WorkerRequest = AnyRequest;
export type WorkerResponse = AnyAnswer;

/** What a model is for, as its record's `model_type` says. */
export const ModelType = { LLM: 0, embedding: 1, VLM: 2 } as const;
export type ModelType = (typeof ModelType)[keyof typeof ModelType];
