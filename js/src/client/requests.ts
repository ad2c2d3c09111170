// Requests by whether their answer is a stream: WebLLM's names.

import type { ChatCompletionRequest, CompletionRequest } from "./api";

type Streaming = { stream: true };
type Whole = { stream?: false | null };

export type ChatCompletionRequestStreaming = ChatCompletionRequest & Streaming;
export type ChatCompletionRequestNonStreaming = ChatCompletionRequest & Whole;
export type CompletionCreateParamsStreaming = CompletionRequest & Streaming;
export type CompletionCreateParamsNonStreaming = CompletionRequest & Whole;
