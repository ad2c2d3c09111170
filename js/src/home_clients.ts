// The clients of a worker that serves several: tells their messages apart by the ids in them.

import type { EngineHost, HostedClient, Post } from "./engine_host";

/** What `Home` (homes.js) adds to a message. WebLLM's clients add nothing. */
interface Address {
  kind?: unknown;
  uuid?: unknown;
  from?: unknown;
  worker?: unknown;
}

export class HomeClients {
  private readonly clients = new Map<unknown, HostedClient>(); // by id
  private host: EngineHost;

  /**
   * `newHost`: makes a host, the next one when the last one calls `onFatal`. `onNew`: called with the
   * id of each client that is new.
   */
  constructor(
    private readonly newHost: (onFatal: () => void) => EngineHost,
    private readonly onNew: (id: unknown) => void = () => {},
  ) {
    this.host = newHost(this.replaceHost);
  }

  /** Passes a message on. `id` is that of a client whose messages have none. */
  receive(data: unknown, post: Post, id?: unknown): void {
    const { from = id, worker, ...message } = (data ?? {}) as Address;
    const isOurs = from !== id;
    const reply: Post = isOurs ? (each) => post({ ...(each as object), to: from }) : post;
    if (typeof message.kind !== "string" || from === undefined) return; // of another protocol
    // The reply ends also the event of the message.
    const lost = (reason: string) => reply({ kind: "lost", uuid: message.uuid, reason });
    if (message.kind === "bye") return this.close(from, "its client has left");
    if (worker !== undefined && worker !== this.host.name) {
      return lost("the browser has stopped it");
    }
    let client = this.clients.get(from);
    if (!client) {
      if (isOurs && message.kind !== "hello") {
        return lost("it took this page for closed");
      }
      client = this.host.connect(reply);
      this.clients.set(from, client);
      this.onNew(from);
    }
    client.receive(message);
  }

  /** Its clients have to greet the next one, as if that were another worker. */
  private readonly replaceHost = () => {
    this.clients.clear();
    this.host = this.newHost(this.replaceHost);
  };

  close(id: unknown, reason: string): void {
    this.clients.get(id)?.close(reason);
    this.clients.delete(id);
  }
}
