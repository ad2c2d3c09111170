// Rebuilds the worker's errors, and creates those of the connection to it.

import { StoreError } from "../../../src/webllm/artifacts/browser/stores.js";
import * as classes from "./error_classes";
import { errorInfo, WebLLMError } from "./error_base";
import { ERROR_CODES, type ErrorName } from "./error_codes";
import type { ErrorInfo, Throw } from "./messages";

export { WebLLMError };

/** WebLLM's own workers give the error's text alone. */
export function rebuild({ content, error }: Throw): WebLLMError {
  if (typeof error?.name === "string" && typeof error.message === "string") return toError(error);
  return made("WebLLMError", String(content));
}

const CLASSES: Record<string, typeof WebLLMError> = { ...classes };

export function workerLost(reason: string): WebLLMError {
  return made("WorkerLostError", `the worker is lost: ${reason}; make a new engine`);
}

/** numLost: of workers, one after another. */
export function gaveUp(numLost: number, error: WebLLMError): WebLLMError {
  return made(
    "WorkerLostError",
    `${numLost} workers in a row were lost with this request, without a new token: ` +
      `${error.message}; it may be what ends them, so change it before you send it again, and ` +
      "read the worker's log",
  );
}

/** The class that an error names, which plain JavaScript has thrown: of stores.js or homes.js. */
export function ofItsName(error: unknown): WebLLMError {
  const { name, message } = error as Error;
  const { code, status } = ERROR_CODES[name as ErrorName] ?? ERROR_CODES.WebLLMError;
  return toError({ name, message, code, status });
}

/** From a worker of another version, or of another library. */
export function unreadableAnswer(reason: string): WebLLMError {
  const hint = "use the same version of webllm in the worker";
  return made("WebLLMError", `the worker's answer cannot be read: ${reason}; ${hint}`);
}

export function requestError(message: string): WebLLMError {
  return made("RequestError", message);
}

export function configError(message: string): WebLLMError {
  return made("ConfigError", message);
}

/** Throws NonWorkerEnvironmentError in a page, where this class would serve nobody. */
export function checkIsWorker(className: string): void {
  if ("WorkerGlobalScope" in globalThis) return;
  const text = `${className} was made in a page, where it would serve nobody`;
  throw made("NonWorkerEnvironmentError", `${text}; make it in a worker's script`);
}

/** Returns the result of a call of stores.js. Throws its StoreError as the class that it names. */
export async function stored<Result>(call: () => Promise<Result>): Promise<Result> {
  try {
    return await call();
  } catch (error) {
    throw error instanceof StoreError ? made(error.name as ErrorName, error.message) : error;
  }
}

function made(name: ErrorName, message: string): WebLLMError {
  return toError(errorInfo(name, message));
}

/** A newer worker may send error names that are unknown here. */
function toError(info: ErrorInfo): WebLLMError {
  return new (CLASSES[info.name] ?? WebLLMError)(info);
}
