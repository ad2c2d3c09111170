// WebLLM's other names for types that we have.

import type {
  ChatCompletionNamedToolChoice,
  ChatCompletionRequestBase,
  Choice,
  CompletionRequest,
  EmbeddingRequest,
  ExtraBody,
  FunctionDefinition,
} from "./api";
import type { ChatCompletionMessageParam } from "./message_params";
import type { AnyReply, AnyRequest, AppConfig } from "./messages";

/** The fields of a request that say how its answer is generated. */
export type GenerationConfig = Pick<
  ChatCompletionRequestBase,
  | "repetition_penalty"
  | "ignore_eos"
  | "top_p"
  | "temperature"
  | "max_tokens"
  | "frequency_penalty"
  | "presence_penalty"
  | "stop"
  | "n"
  | "logit_bias"
  | "logprobs"
  | "top_logprobs"
  | "response_format"
> &
  Pick<ExtraBody, "enable_thinking" | "enable_latency_breakdown">;
export type ChatCompletionRole = ChatCompletionMessageParam["role"];
export type ChatCompletionToolChoiceOption = "none" | "auto" | ChatCompletionNamedToolChoice;
export type ChatCompletionFinishReason = Choice["finish_reason"];
export type FunctionParameters = NonNullable<FunctionDefinition["parameters"]>;
export type CompletionCreateParams = CompletionRequest;
export type EmbeddingCreateParams = EmbeddingRequest;
export type OPFSAccessMode = NonNullable<AppConfig["opfsAccessMode"]>;
export type WorkerRequest = AnyRequest;
export type WorkerResponse = AnyReply;

/** The kinds of models, as in a record's `model_type`. */
export const ModelType = { LLM: 0, embedding: 1, VLM: 2 } as const;
export type ModelType = (typeof ModelType)[keyof typeof ModelType];
