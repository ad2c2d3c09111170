// Reads a conversation from its database record.

import { fields, isNumber, isOneOf, isText } from "./reader";
import type { Conversation, Message, Stats } from "./state";

const ROLES = ["user", "assistant"] as const;
const STATES = ["done", "waiting", "streaming", "stopped", "cut", "failed"] as const;

/** Returns null for a record that is damaged or of another version. */
export function conversationOf(record: unknown): Conversation | null {
  const { id, changedAt, messages } = fields(record);
  if (!isText(id) || !isNumber(changedAt) || !Array.isArray(messages)) return null;
  const read = messages.map(messageOf).filter((each) => each !== null);
  const numIds = new Set(read.map((each) => each.id)).size;
  return numIds === messages.length ? { id, changedAt, messages: read } : null;
}

function messageOf(record: unknown): Message | null {
  const { id, role, text, state, error, stats } = fields(record);
  if (!isText(id) || !isOneOf(role, ROLES) || !isText(text) || !isOneOf(state, STATES)) return null;
  const message: Message = { id, role, text, state };
  if (isText(error)) message.error = error;
  if (isStats(stats)) message.stats = stats;
  return message;
}

function isStats(value: unknown): value is Stats {
  const { tokens, tokensPerSecond, firstTokenSeconds } = fields(value);
  return [tokens, tokensPerSecond, firstTokenSeconds].every((each) => isNumber(each, { min: 0 }));
}
