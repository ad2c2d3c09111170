// Sessions: answers that the worker's journal keeps, so that they can be resumed.

import type { ResumableSession } from "./api";
import type { ResumeOptions } from "./messages";

/**
 * Keeps an answer in the journal. A request with the `sessionId` of an earlier one, and otherwise
 * the same, attaches to its answer.
 */
export interface Resumable {
  enabled?: boolean;
  /** Default: a new one, which is also in the response's id. */
  sessionId?: string | null;
  /** A stream begins after these tokens of the answer; not in WebLLM. */
  fromToken?: number | number[] | null;
  /** Whether an answer that cannot be kept ends with an error. */
  strictPersistence?: boolean | null;
  /** Without effect, as are those below. */
  checkpointIntervalTokens?: number | null;
  checkpointPrompt?: boolean | null;
  durabilityMode?: "exact" | "relaxed" | null;
  storeCheckpointLogits?: boolean | null;
}

// WebLLM's names.
export type ResumableGenerationConfig = Resumable;
export type ResumeChatCompletionOptions = ResumeOptions;
export type ResumeProbeResult = ResumableSession;
export type ResumableSessionInfo = ResumableSession;
