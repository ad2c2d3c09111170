// What web pages and other extensions may ask an extension's engine: to answer them, with the models
// of its catalogue. Not its conversations, its last answer or its memory. Nor may they set anything
// about a loaded model, which they share with the user; each request has settings of its own.

import type { Port } from "./chrome";
import type { Kind } from "./client/messages";

const ALLOWED: ReadonlySet<unknown> = new Set<Kind | "bye" | "keepAlive" | "stay">([
  "abort",
  "bye",
  "chatCompletionNonStreaming",
  "chatCompletionStreamInit",
  "completionNonStreaming",
  "completionStreamInit",
  "completionStreamNextChunk",
  "completionStreamReturn",
  "deleteResumableSession",
  "embedding",
  "hello",
  "interruptGenerate",
  "keepAlive",
  "reload",
  "stay",
]);

interface Session {
  sessionId?: unknown;
  session_id?: unknown; // in requests from Python
}

interface Sessions extends Session {
  request?: { extra_body?: { resumable?: Session | null } | null } | null;
}

const SOURCE = /[:/\\]|\.gguf$/; // as in config.py

/** Whether a port comes from outside of this extension, or from a page that it has a script in. */
export function isForeign({ sender }: Port): boolean {
  return sender?.origin !== location.origin;
}

/**
 * Why a message is refused; null if it is not. `modelIds`: of the catalogue; if it is not known, any
 * name will do that is no source, from which a model would be downloaded.
 */
export function refusal(message: object, modelIds?: ReadonlySet<string>): string | null {
  const { kind, content } = message as { kind?: unknown; content?: unknown };
  if (!ALLOWED.has(kind)) return `only pages of this extension may ask for ${String(kind)}`;
  const { modelId, chatOpts } = (content ?? {}) as { modelId?: unknown; chatOpts?: unknown };
  if ([chatOpts].flat().some(setsSomething)) {
    const instead = "give temperature and the like in each request";
    return `only pages of this extension may give chat options; ${instead}`;
  }
  const isKnown = (id: unknown) => modelIds?.has(String(id)) ?? !SOURCE.test(String(id));
  const unknown = [modelId].flat().find((each) => each != null && !isKnown(each));
  if (unknown === undefined) return null;
  const known = modelIds ? `it has ${[...modelIds].join(", ")}` : "name one of its catalogue";
  return `this extension has no model ${JSON.stringify(unknown)}; ${known}`;
}

/**
 * Puts the origin in front of the ids of sessions in a message: each origin has its own, and reaches
 * no other's. Our client keeps each answer in one, which it deletes once that is read.
 */
export function claimSessions(message: object, origin: string): void {
  const { content } = message as { content?: Sessions };
  for (const holder of [content, content?.request?.extra_body?.resumable]) {
    if (holder?.sessionId) holder.sessionId = `${origin} ${String(holder.sessionId)}`;
    if (holder?.session_id) holder.session_id = `${origin} ${String(holder.session_id)}`;
  }
}

function setsSomething(options: unknown): boolean {
  return options != null && Object.values(options).some((each) => each != null);
}
