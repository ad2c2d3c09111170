// Hosts an engine in a Web Worker for the page that made it. Python starts at once.

import { EngineHost, type HostedClient, type Post } from "./engine_host";

const SERVE = `
import js
from webllm.workers.browser import BrowserPort
from webllm.workers.handler import MLCEngineHandler

lambda endpoint: MLCEngineHandler().serve(BrowserPort(endpoint, js.self.close))
`;

export class WorkerHost {
  private readonly page: HostedClient;

  /** `python` is code whose value is a function that serves an endpoint. */
  constructor(post: Post, python = SERVE) {
    // `boot` comes later, so that messages are received meanwhile.
    const host = new EngineHost({
      boot: async (options) => (await import("./boot")).boot(options),
      python,
    });
    this.page = host.connect(post);
    host.start();
  }

  receive(message: unknown): void {
    this.page.receive(message);
  }
}
