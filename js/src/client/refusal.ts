// The answers of a worker whose Python cannot start.

import type { Throw } from "./messages";

const UNANSWERED = new Set<unknown>(["setAppConfig", "setLogLevel", "abort"]);

export function couldNotStart(
  message: unknown,
  error: unknown,
  post: (answer: Throw) => void,
): void {
  const { kind, uuid } = (message ?? {}) as { kind?: unknown; uuid?: unknown };
  if (typeof uuid !== "string" || UNANSWERED.has(kind)) return; // nobody waits for an answer
  const text = `the worker is lost: Python could not start in it: ${String(error)}`;
  const info = { name: "WorkerLostError", message: text, code: "worker_lost", status: 503 };
  post({ kind: "throw", uuid, content: `${info.name}: ${text}`, error: info });
}
