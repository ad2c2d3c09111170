// `WebWorkerMLCEngineHandler`: what a worker script needs to serve the page that made it.

import { WorkerHost, type Python } from "../worker_host";
import { fileAt, type Root } from "./root";

/**
 * Starts Python in this worker and answers the messages that `onmessage` is given, also those
 * that come before Python is there.
 *
 *     const handler = new WebWorkerMLCEngineHandler();
 *     self.onmessage = (event) => handler.onmessage(event);
 *
 * `root` says where webllm's files (`js/dist`) are served: give it if they are not beside the
 * bundle that this class ends up in. Another origin has to allow its use by CORS.
 */
export class WebWorkerMLCEngineHandler {
  private readonly host: WorkerHost;

  constructor({ root }: { root?: Root } = {}) {
    this.host = new WorkerHost(boot(fileAt("boot.js", root)), (message) =>
      this.postMessage(message),
    );
  }

  onmessage(event: MessageEvent): void {
    this.host.receive(event.data);
  }

  /** To the page. May be overridden, as WebLLM's. */
  postMessage(message: unknown): void {
    self.postMessage(message);
  }
}

/** Python is never part of a bundle: it is fetched from where it is served. */
async function boot(script: URL): Promise<Python> {
  const { boot } = await import(/* @vite-ignore */ /* webpackIgnore: true */ script.href);
  return boot();
}
