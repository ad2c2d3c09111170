// The base class of all errors. Names, codes and statuses are those of webllm.errors.

import { ERROR_CODES, type ErrorName } from "./error_codes";
import type { ErrorInfo } from "./messages";

export class WebLLMError extends Error {
  /** Stable, for programs. */
  readonly code: string;
  /** HTTP status. */
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

export function errorInfo(name: ErrorName, message: string): ErrorInfo {
  return { name, message, ...ERROR_CODES[name] };
}

export function integrityInfo(url: string, expected: string, actual: string): ErrorInfo {
  const message = `${url} has the hash ${actual}, expected ${expected}`;
  return { ...errorInfo("IntegrityError", message), url, expected, actual };
}
