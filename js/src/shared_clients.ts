// The clients of a worker that serves all tabs of the site and is no Service Worker.

import { presenceLock } from "../../src/webllm/workers/homes.js";
import { EngineHost } from "./engine_host";
import { HomeClients } from "./home_clients";
import { SERVE_ALL } from "./serving";

/** `python`: see `HostOptions`. */
export function sharedClients(python = SERVE_ALL): HomeClients {
  const newHost = (onFatal: () => void) =>
    new EngineHost({
      boot: async (options) => (await import("./boot")).boot(options),
      python,
      onFatal,
    });
  const clients = new HomeClients(newHost, (id) =>
    whenGone(id, () => clients.close(id, "its page was closed")),
  );
  return clients;
}

/** Serves all who post on the channel with this worker's name. */
export function serveChannel(python?: string): void {
  const channel = new BroadcastChannel(self.name);
  const clients = sharedClients(python);
  channel.onmessage = ({ data }) => {
    if (data?.to === undefined) clients.receive(data, (message) => channel.postMessage(message));
  };
  channel.postMessage({ kind: "here" });
}

/** Calls back once a client is gone, by the lock that it holds. Never without Web Locks. */
function whenGone(id: unknown, onGone: () => void): void {
  navigator.locks?.request(presenceLock(String(id)), onGone).catch(() => {}); // not allowed here
}
