// The page's state: plain data, replaced and never changed in place.

import type { ModelRecord } from "../client";
import type { Device } from "./device";
import type { SampledWith, Settings } from "./settings";

export interface Stats {
  tokens: number;
  tokensPerSecond: number;
  firstTokenSeconds: number | null; // unknown for an answer that was resumed
}

/** "cut": ended by the limit on its length. */
export type MessageState = "done" | "waiting" | "streaming" | "stopped" | "cut" | "failed";

/** What an answer is asked with, beside the messages before it. */
export interface Asked {
  modelId: string;
  systemPrompt: string;
  sampling: SampledWith;
}

/** What a model gets of a web page. */
export interface PageText {
  url: string;
  title: string;
  text: string;
  length: number; // of all its text; more than that of `text` if only the beginning is taken
}

export interface Message {
  id: string;
  role: "user" | "assistant";
  text: string;
  state: MessageState;
  page?: PageText; // what the user shares with the question
  asked?: Asked; // while the engine's journal may have the answer, under the message's id
  percentRead?: number; // of a long prompt; not kept
  isCatchingUp?: boolean; // until there is more than a page before has shown; not kept
  error?: string;
  stats?: Stats;
}

export interface Conversation {
  id: string;
  changedAt: number; // ms
  messages: Message[];
}

interface Ready {
  phase: "ready";
  device: string; // as the worker names it
  isShared: boolean;
  memoryBytes: number | null; // of weights and conversations; null: unknown
  contextTokens: number | null; // of a conversation; null: unknown
}

export type ModelState =
  | { phase: "none" }
  | { phase: "asleep" } // nothing is loaded; the next question loads the model again
  | { phase: "loading"; text: string; progress: number | null; detail: string }
  | Ready
  | { phase: "replaced"; by: string } // by: the model that another tab loaded, "" if unknown
  | { phase: "failed"; wasReady: boolean; error: string; isStorageFull: boolean };

export type Keepable = "conversations" | "settings" | "models";

export interface State {
  conversations: Conversation[]; // the last changed first
  currentId: string; // of a conversation, or of one to be
  isOpening: boolean; // until it is known whether there is a conversation with this id
  models: ModelRecord[]; // of this site, picked or taken from WebLLM's list
  listed: readonly ModelRecord[]; // those of WebLLM's list that run, once someone looks at it
  kept: ReadonlySet<string>; // ids of the models that the browser has stored
  modelId: string; // the chosen one
  model: ModelState;
  device: Device | null; // null: not known yet
  settings: Settings;
  notKept: ReadonlyMap<Keepable, string>; // why
  unreadable: string; // a sentence about kept conversations that cannot be read, or ""
}
