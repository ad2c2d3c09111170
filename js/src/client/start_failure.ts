// Answers messages in a worker where Python could not start.

import { errorInfo } from "./error_base";
import { UNANSWERED, type Throw } from "./messages";

/** Posts a WorkerLostError in reply to a message, if its sender waits for a reply. */
export function replyStartFailure(
  message: unknown,
  error: unknown,
  post: (reply: Throw) => void,
): void {
  const { kind, uuid } = (message ?? {}) as { kind?: unknown; uuid?: unknown };
  if (typeof uuid !== "string" || UNANSWERED.has(kind)) return;
  const text = `the worker is lost: Python could not start in it: ${String(error)}`;
  const info = errorInfo("WorkerLostError", text);
  post({ kind: "throw", uuid, content: `${info.name}: ${text}`, error: info });
}
