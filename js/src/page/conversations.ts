// What can happen to conversations. Plain functions: lists in, lists out.

import type { Conversation, Message } from "./state";
import { t } from "./texts";

const TITLE_LENGTH = 60;

export function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(8)), hex).join("");
}

export function newMessage(role: Message["role"], text: string): Message {
  return { id: newId(), role, text, state: role === "user" ? "done" : "waiting" };
}

export function title(conversation: Conversation): string {
  const first = conversation.messages.find((message) => message.role === "user")?.text ?? "";
  const line = first
    .trimStart()
    .slice(0, 4 * TITLE_LENGTH)
    .trimEnd()
    .replace(/\s+/g, " ");
  const characters = [...line]; // never half of one
  if (characters.length <= TITLE_LENGTH) return line || t("newChat");
  return `${characters.slice(0, TITLE_LENGTH - 1).join("")}…`;
}

export function find(conversations: Conversation[], id: string): Conversation | undefined {
  return conversations.find((each) => each.id === id);
}

/** Gives a conversation these messages and moves it to the front. */
export function withMessages(
  conversations: Conversation[],
  id: string,
  messages: Message[],
): Conversation[] {
  const changed = { id, changedAt: Date.now(), messages };
  return [changed, ...without(conversations, id)];
}

export function without(conversations: Conversation[], id: string): Conversation[] {
  return conversations.filter((each) => each.id !== id);
}

/** Replaces the message with the same id. Changes nothing if the conversation was deleted. */
export function withMessage(
  conversations: Conversation[],
  id: string,
  message: Message,
): Conversation[] {
  return conversations.map((each) => {
    if (each.id !== id) return each;
    const messages = each.messages.map((old) => (old.id === message.id ? message : old));
    return { ...each, messages };
  });
}

/** The messages before one of them. */
export function before(messages: Message[], messageId: string): Message[] {
  const at = messages.findIndex((message) => message.id === messageId);
  return at < 0 ? messages : messages.slice(0, at);
}

export function isAnswering(conversation: Conversation | undefined): boolean {
  const last = conversation?.messages.at(-1);
  return last !== undefined && isUnderWay(last);
}

export function isUnderWay({ state }: Message): boolean {
  return state === "waiting" || state === "streaming";
}

/** Puts a conversation in the place of that with the same id, and the last changed in front. */
export function withConversation(
  conversations: Conversation[],
  conversation: Conversation,
): Conversation[] {
  const all = [conversation, ...without(conversations, conversation.id)];
  return all.sort((one, other) => other.changedAt - one.changedAt);
}

function hex(byte: number): string {
  return byte.toString(16).padStart(2, "0");
}
