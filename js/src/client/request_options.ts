// OpenAI's options beside a request, and waits that a signal ends.

/** An `AbortSignal` ends the request in the worker; its promise rejects with the signal's reason. */
export interface RequestOptions {
  signal?: AbortSignal | null | undefined;
}

/** Waits for a promise that others wait for too. Throws the signal's reason once it aborts. */
export async function unlessAborted<Result>(
  promise: Promise<Result>,
  { signal }: RequestOptions,
): Promise<Result> {
  if (!signal) return promise;
  signal.throwIfAborted();
  let abort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort);
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
