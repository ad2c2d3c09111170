// Connections between a client and its worker: one adapter for each kind.

import type { WebLLMError } from "./error_base";
import type { AnyRequest } from "./messages";

export interface Endpoint {
  /** Whether it notices by itself that its worker has ended. Else a lock of the worker's tells. */
  readonly noticesEnd?: boolean;
  post(message: AnyRequest): void;
  /** Starts listening. Call it once. An error as the reason: there is no worker to be had. */
  listen(
    onMessage: (message: unknown) => void,
    onLost: (reason: string | WebLLMError) => void,
  ): void;
  close(): void;
}

/** What a client accepts as its worker. */
export type WorkerLike = Worker | MessagePort | Endpoint;

export function toEndpoint(worker: WorkerLike): Endpoint {
  if ("listen" in worker) return worker;
  return "terminate" in worker ? workerEndpoint(worker) : messagePortEndpoint(worker);
}

export function workerEndpoint(worker: Worker): Endpoint {
  return {
    post: (message) => worker.postMessage(message),
    listen(onMessage, onLost) {
      worker.addEventListener("message", (event) => onMessage(event.data));
      worker.addEventListener("messageerror", () => onLost("it sent what cannot be read"));
      worker.addEventListener("error", (event) => {
        event.preventDefault(); // the waiting calls report it
        onLost(event.message || "its script could not be loaded");
      });
    },
    close: () => worker.terminate(),
  };
}

/** The other end of the channel belongs to the worker: of a page, a frame or a shared worker. */
export function messagePortEndpoint(port: MessagePort): Endpoint {
  return {
    post: (message) => port.postMessage(message),
    listen(onMessage, onLost) {
      port.addEventListener("message", (event) => onMessage(event.data));
      port.addEventListener("messageerror", () => onLost("it sent what cannot be read"));
      port.addEventListener("close", () => onLost("its port was closed"));
      port.start();
    },
    close: () => port.close(),
  };
}
