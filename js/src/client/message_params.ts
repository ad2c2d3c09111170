// The messages of a request by role, as WebLLM types them; in Python they are one struct.

import type { ToolCallParam } from "./api";
import type { ChatCompletionContentPart, ChatCompletionContentPartText } from "./content_parts";

/** The first message, or none; "developer" is OpenAI's newer name of "system". */
export interface ChatCompletionSystemMessageParam {
  role: "system" | "developer";
  content: string | ChatCompletionContentPartText[];
  name?: string | null;
}

export interface ChatCompletionUserMessageParam {
  role: "user";
  content: string | ChatCompletionContentPart[];
  name?: string | null;
}

export interface ChatCompletionAssistantMessageParam {
  role: "assistant";
  content?: string | null;
  name?: string | null;
  tool_calls?: ToolCallParam[] | null;
}

/** What a tool answered. */
export interface ChatCompletionToolMessageParam {
  role: "tool";
  content: string | ChatCompletionContentPartText[];
  tool_call_id: string;
}

export type ChatCompletionMessageParam =
  | ChatCompletionSystemMessageParam
  | ChatCompletionUserMessageParam
  | ChatCompletionAssistantMessageParam
  | ChatCompletionToolMessageParam;
