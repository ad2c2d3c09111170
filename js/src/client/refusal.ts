// The replies of a worker in which Python cannot start.

import { errorInfo } from "./error_base";
import { UNANSWERED, type Throw } from "./messages";

export function couldNotStart(
  message: unknown,
  error: unknown,
  post: (answer: Throw) => void,
): void {
  const { kind, uuid } = (message ?? {}) as { kind?: unknown; uuid?: unknown };
  if (typeof uuid !== "string" || UNANSWERED.has(kind)) return; // nobody waits for an answer
  const text = `the worker is lost: Python could not start in it: ${String(error)}`;
  const info = errorInfo("WorkerLostError", text);
  post({ kind: "throw", uuid, content: `${info.name}: ${text}`, error: info });
}
