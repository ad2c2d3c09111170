// `WebWorkerMLCEngineHandler`: serves an engine from a worker script.

import { checkIsWorker } from "./errors";
import { refuseLogitProcessors, type LogitProcessorRegistry } from "./logit_processor";
import { replyStartFailure } from "./start_failure";
import { fileAt, notServed, type Root } from "./root";

/**
 * Starts Python in this worker and answers the messages passed to `onmessage`, including those that
 * arrive before Python has started.
 *
 *     const handler = new WebWorkerMLCEngineHandler();
 *     self.onmessage = (event) => handler.onmessage(event);
 *
 * `root` is the address of webllm's files (`js/dist`). Give it if they are not beside the bundle with
 * this class. Another origin has to allow access by CORS. Throws NonWorkerEnvironmentError in a page.
 */
export class WebWorkerMLCEngineHandler {
  private readonly host: Promise<Host>;

  constructor({ root }: { root?: Root } = {}) {
    checkIsWorker("WebWorkerMLCEngineHandler");
    this.host = start(fileAt("host.js", root), (message) => this.postMessage(message));
  }

  onmessage({ data }: MessageEvent): void {
    void this.host.then((host) => host.receive(data));
  }

  /** Throws ConfigError: JavaScript's functions cannot run in a Python worker. */
  setLogitProcessorRegistry(registry?: LogitProcessorRegistry): void {
    refuseLogitProcessors(registry);
  }

  /** Posts to the page. May be overridden, as in WebLLM. */
  postMessage(message: unknown): void {
    self.postMessage(message);
  }
}

async function fetched(script: URL): Promise<{ WorkerHost: new (post: Post) => Host }> {
  try {
    return await import(/* @vite-ignore */ /* webpackIgnore: true */ script.href);
  } catch (error) {
    const hint = notServed(script, 'new WebWorkerMLCEngineHandler({ root: "/webllm/" })');
    throw new Error(`${(error as Error).message}; ${hint}`, { cause: error });
  }
}

interface Host {
  receive(message: unknown): void;
}

type Post = (message: unknown) => void;

/** The files that start Python are never part of a bundle; they are fetched. */
async function start(script: URL, post: Post): Promise<Host> {
  try {
    const { WorkerHost } = await fetched(script);
    return new WorkerHost(post);
  } catch (error) {
    console.error(error);
    return { receive: (message) => replyStartFailure(message, error, post) };
  }
}
