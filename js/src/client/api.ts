// Made by client_types.py from src/webllm/api/; do not edit.

import type { ChatCompletionMessageParam } from "./message_params";
import type { Resumable } from "./resumable";

export interface ChatCompletionRequestBase {
  model?: string | null;
  stream?: boolean | null;
  stream_options?: StreamOptions | null;
  max_tokens?: number | null;
  n?: number | null;
  temperature?: number | null;
  top_p?: number | null;
  top_k?: number | null;
  min_p?: number | null;
  frequency_penalty?: number | null;
  presence_penalty?: number | null;
  repetition_penalty?: number | null;
  logit_bias?: Record<string, number> | null;
  logprobs?: boolean | null;
  top_logprobs?: number | null;
  seed?: number | null;
  stop?: string | string[] | null;
  ignore_eos?: boolean;
  extra_body?: ExtraBody | null;
  messages: ChatCompletionMessageParam[];
  tools?: ChatCompletionTool[] | null;
  tool_choice?: "auto" | "none" | "required" | ChatCompletionNamedToolChoice | null;
  response_format?: ResponseFormat | null;
  user?: string | null;
}

export interface ChatCompletionRequestNonStreaming extends ChatCompletionRequestBase {
  stream?: false | null;
}

export interface ChatCompletionRequestStreaming extends ChatCompletionRequestBase {
  stream: true;
}

export type ChatCompletionRequest =
  ChatCompletionRequestNonStreaming | ChatCompletionRequestStreaming;

export interface StreamOptions {
  include_usage?: boolean;
}

/** WebLLM's fields that OpenAI does not have, and those of vLLM and llama.cpp's server. */
export interface ExtraBody {
  enable_thinking?: boolean | null;
  enable_latency_breakdown?: boolean | null;
  context_overflow?: "error" | "shift" | "truncate_oldest_messages" | null;
  resumable?: Resumable | null;
  request_id?: string | null;
  return_token_ids?: boolean | null;
  return_progress?: boolean | null;
}

export interface ImageURL {
  url: string;
  detail?: "auto" | "high" | "low" | null;
}

export interface ToolCallParam {
  id: string;
  function: ToolCallFunction;
  type?: "function";
}

export interface ToolCallFunction {
  name: string;
  arguments: string;
}

export interface ChatCompletionTool {
  function: FunctionDefinition;
  type?: "function";
}

export interface FunctionDefinition {
  name: string;
  description?: string | null;
  parameters?: Record<string, unknown> | null;
  strict?: boolean | null;
}

export interface ChatCompletionNamedToolChoice {
  function: NamedFunction;
  type?: "function";
}

export declare namespace ChatCompletionNamedToolChoice {
  export type Function = import("./api").NamedFunction;
}

export interface NamedFunction {
  name: string;
}

export interface ResponseFormat {
  type?: "grammar" | "json_object" | "json_schema" | "structural_tag" | "text";
  schema?: string | null;
  grammar?: string | null;
  json_schema?: JSONSchemaFormat | null;
  structural_tag?: unknown;
}

/** OpenAI's `json_schema` object. */
export interface JSONSchemaFormat {
  name: string;
  schema?: Record<string, unknown> | null;
  description?: string | null;
  strict?: boolean | null;
}

export interface CompletionCreateParamsBase {
  model?: string | null;
  stream?: boolean | null;
  stream_options?: StreamOptions | null;
  max_tokens?: number | null;
  n?: number | null;
  temperature?: number | null;
  top_p?: number | null;
  top_k?: number | null;
  min_p?: number | null;
  frequency_penalty?: number | null;
  presence_penalty?: number | null;
  repetition_penalty?: number | null;
  logit_bias?: Record<string, number> | null;
  logprobs?: boolean | null;
  top_logprobs?: number | null;
  seed?: number | null;
  stop?: string | string[] | null;
  ignore_eos?: boolean;
  extra_body?: ExtraBody | null;
  prompt: string;
  echo?: boolean | null;
}

export interface CompletionCreateParamsNonStreaming extends CompletionCreateParamsBase {
  stream?: false | null;
}

export interface CompletionCreateParamsStreaming extends CompletionCreateParamsBase {
  stream: true;
}

export type CompletionRequest =
  CompletionCreateParamsNonStreaming | CompletionCreateParamsStreaming;

export interface EmbeddingRequest {
  input: string | (string | number | number[])[];
  model?: string | null;
  encoding_format?: "float" | null;
  user?: string | null;
}

export interface ChatCompletion {
  object: "chat.completion";
  id: string;
  created: number;
  model: string;
  choices: Choice[];
  usage?: CompletionUsage | null;
  system_fingerprint?: string | null;
}

export declare namespace ChatCompletion {
  export type Choice = import("./api").Choice;
}

export interface Choice {
  index: number;
  message: ChatCompletionMessage;
  finish_reason: "abort" | "length" | "stop" | "tool_calls";
  logprobs: Logprobs | null;
  token_ids?: number[] | null;
}

export interface ChatCompletionMessage {
  role: "assistant";
  content: string | null;
  tool_calls?: ChatCompletionMessageToolCall[] | null;
}

export interface ChatCompletionMessageToolCall {
  type: "function";
  id: string;
  function: FunctionCall;
}

export declare namespace ChatCompletionMessageToolCall {
  export type Function = import("./api").FunctionCall;
}

export interface FunctionCall {
  name: string;
  arguments: string;
}

export interface Logprobs {
  content: ChatCompletionTokenLogprob[] | null;
}

export interface ChatCompletionTokenLogprob {
  token: string;
  bytes: number[] | null;
  logprob: number;
  top_logprobs: TopLogprob[];
}

export interface TopLogprob {
  token: string;
  bytes: number[] | null;
  logprob: number;
}

/** The tokens of a request; `completion_tokens` counts all choices. */
export interface CompletionUsage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  extra: UsageExtra;
  prompt_tokens_details?: PromptTokensDetails | null;
}

/** Times in seconds since the engine received the request, and tokens per second. */
export interface UsageExtra {
  e2e_latency_s: number;
  prefill_tokens_per_s: number;
  decode_tokens_per_s: number;
  time_to_first_token_s: number;
  time_per_output_token_s: number;
  grammar_init_s?: number | null;
  grammar_per_token_s?: number | null;
  latencyBreakdown?: Record<string, number[]> | null;
}

export interface PromptTokensDetails {
  cached_tokens: number;
}

/** One chunk of a stream; chunks with `prompt_progress` or `usage` have no `choices`. */
export interface ChatCompletionChunk {
  object: "chat.completion.chunk";
  id: string;
  created: number;
  model: string;
  choices: ChunkChoice[];
  usage?: CompletionUsage | null;
  system_fingerprint?: string | null;
  prompt_progress?: PromptProgress | null;
}

export declare namespace ChatCompletionChunk {
  export type Choice = import("./api").ChunkChoice;
}

export interface ChunkChoice {
  index: number;
  delta: Delta;
  finish_reason: "abort" | "length" | "stop" | "tool_calls" | null;
  logprobs?: Logprobs | null;
  token_ids?: number[] | null;
}

/** The additions of a chunk to its choice's message. */
export interface Delta {
  role?: "assistant" | null;
  content?: string | null;
  tool_calls?: ToolCallDelta[] | null;
}

export interface ToolCallDelta {
  index: number;
  id?: string | null;
  type?: "function" | null;
  function?: FunctionCallDelta | null;
}

export interface FunctionCallDelta {
  name?: string | null;
  arguments?: string | null;
}

/** How far a prompt has been read; the fields of llama.cpp's server. */
export interface PromptProgress {
  total: number;
  cache: number;
  processed: number;
  time_ms: number;
}

export interface Completion {
  object: "text_completion";
  id: string;
  created: number;
  model: string;
  choices: CompletionChoice[];
  usage?: CompletionUsage | null;
  system_fingerprint?: string | null;
  prompt_progress?: PromptProgress | null;
}

/** One continuation; as in WebLLM, `logprobs` has the shape of chat completions. */
export interface CompletionChoice {
  index: number;
  text: string;
  finish_reason: "abort" | "length" | "stop" | "tool_calls" | null;
  logprobs: Logprobs | null;
  token_ids?: number[] | null;
}

export interface CreateEmbeddingResponse {
  object: "list";
  data: Embedding[];
  model: string;
  usage: EmbeddingUsage;
}

export declare namespace CreateEmbeddingResponse {
  export type Usage = import("./api").EmbeddingUsage;
}

export interface Embedding {
  object: "embedding";
  index: number;
  embedding: number[];
}

export interface EmbeddingUsage {
  prompt_tokens: number;
  total_tokens: number;
}

/** Ours; WebLLM has nothing like it. */
export interface EngineStats {
  models: ModelStats[];
  loading?: string[];
}

/** One loaded model. A request of n choices is n sequences. */
export interface ModelStats {
  model_id: string;
  device: string;
  running: number;
  waiting: number;
  free_blocks: number;
  blocks: number;
  block_tokens: number;
  memory_bytes?: number | null;
}

/**
 * A session in the journal; WebLLM's `ResumeProbeResult`.
 *
 * resumable: whether `resume_chat_completion` can go on, also with an answer that this engine
 * generates now. recovery_mode: "token_replay" for an answer that can be continued, "text_only"
 * for one that has ended. is_exact: False if what the loaded model computes now may differ in bits
 * from what it computed then; None if the model is not loaded. The last two fields are ours.
 */
export interface ResumableSession {
  sessionId: string;
  resumable: boolean;
  modelId: string;
  emittedTokens: number;
  processedSeqLen: number;
  recoveryMode: "none" | "text_only" | "token_replay";
  reason?: string | null;
  created?: number;
  isExact?: boolean | null;
}

/**
 * A session's text: that in the journal, or the finished one if generation was continued.
 *
 * is_exact: see `ResumableSession`. recovered_texts: one for each choice. Both are ours.
 */
export interface ResumeResult {
  sessionId: string;
  recoveredText: string;
  emittedTokens: number;
  processedSeqLen: number;
  replayedTokens: number;
  recoveryMode: "none" | "text_only" | "token_replay";
  recoveredTexts: string[];
  isExact?: boolean | null;
}
