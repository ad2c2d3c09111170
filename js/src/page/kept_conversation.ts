// Reads a conversation from its database record.

import { isUnderWay } from "./conversations";
import { fields, isFields, isNumber, isOneOf, isText } from "./reader";
import { readSampling } from "./settings";
import type { Asked, Conversation, Message, PageText, Stats } from "./state";

const ROLES = ["user", "assistant"] as const;
const STATES = ["done", "waiting", "streaming", "stopped", "cut", "failed"] as const;

/**
 * Returns null for a record that is damaged or of another version. An answer under way of which it
 * is not known what was asked has stopped.
 */
export function conversationOf(record: unknown): Conversation | null {
  const { id, changedAt, messages } = fields(record);
  if (!isText(id) || !isNumber(changedAt) || !Array.isArray(messages)) return null;
  const read = messages.map(messageOf).filter((each) => each !== null);
  const numIds = new Set(read.map((each) => each.id)).size;
  return numIds === messages.length ? { id, changedAt, messages: read } : null;
}

function messageOf(record: unknown): Message | null {
  const { id, role, text, state, error, stats, asked, page } = fields(record);
  if (!isText(id) || !isOneOf(role, ROLES) || !isText(text) || !isOneOf(state, STATES)) return null;
  const message: Message = { id, role, text, state };
  if (isText(error)) message.error = error;
  if (isStats(stats)) message.stats = stats;
  if (isPage(page)) message.page = page;
  const read = askedOf(asked);
  if (read) message.asked = read;
  return read || !isUnderWay(message) ? message : { ...message, state: "stopped" };
}

function askedOf(record: unknown): Asked | null {
  const { modelId, systemPrompt, sampling } = fields(record);
  if (!isText(modelId) || !isText(systemPrompt) || !isFields(sampling)) return null;
  return { modelId, systemPrompt, sampling: readSampling(sampling) };
}

function isPage(value: unknown): value is PageText {
  const { url, title, text, length } = fields(value);
  return [url, title, text].every(isText) && isNumber(length, { min: 1 });
}

function isStats(value: unknown): value is Stats {
  const { tokens, tokensPerSecond, firstTokenSeconds } = fields(value);
  return [tokens, tokensPerSecond, firstTokenSeconds ?? 0].every((each) =>
    isNumber(each, { min: 0 }),
  );
}
