// Errors as the worker throws them: their names, codes and statuses are those of webllm.errors.

import type { ErrorInfo, Throw } from "./messages";

export class WebLLMError extends Error {
  /** Stable, for programs. */
  readonly code: string;
  /** That of HTTP. */
  readonly status: number;
  /** The field of the request that is wrong. */
  readonly field: string | null;

  constructor(info: ErrorInfo) {
    super(info.message);
    this.name = info.name;
    this.code = info.code;
    this.status = info.status;
    this.field = info.field ?? null;
  }
}

/** WebLLM's own workers give the error's text alone. */
export function rebuild(thrown: Throw): WebLLMError {
  const unnamed = {
    name: "WebLLMError",
    message: thrown.content,
    code: "webllm_error",
    status: 500,
  };
  return new WebLLMError(thrown.error ?? unnamed);
}

export function workerLost(reason: string): WebLLMError {
  return new WebLLMError({
    name: "WorkerLostError",
    message: `the worker is lost: ${reason}; make a new engine`,
    code: "worker_lost",
    status: 503,
  });
}

export function requestError(message: string): WebLLMError {
  return new WebLLMError({
    name: "RequestError",
    message,
    code: "invalid_request_error",
    status: 400,
  });
}
