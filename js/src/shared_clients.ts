// The clients of a worker that serves all tabs of the site and is no Service Worker.

import { presenceLock } from "../../src/webllm/workers/homes.js";
import { EngineHost } from "./engine_host";
import { HomeClients } from "./home_clients";
import { SERVE_ALL } from "./serving";

export function sharedClients(): HomeClients {
  const newHost = (onFatal: () => void) =>
    new EngineHost({
      boot: async (options) => (await import("./boot")).boot(options),
      python: SERVE_ALL,
      onFatal,
    });
  const clients = new HomeClients(newHost, (id) =>
    whenGone(id, () => clients.close(id, "its page was closed")),
  );
  return clients;
}

/** Calls back once a client is gone, by the lock that it holds. Never without Web Locks. */
function whenGone(id: unknown, onGone: () => void): void {
  navigator.locks?.request(presenceLock(String(id)), onGone).catch(() => {}); // not allowed here
}
