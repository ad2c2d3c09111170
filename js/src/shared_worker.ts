// A SharedWorker that serves all tabs of the site.

import { EngineHost } from "./engine_host";
import { HomeClients } from "./home_clients";
import { whenGone } from "./presence";
import { SERVE_ALL } from "./serving";

const newHost = (onFatal: () => void) =>
  new EngineHost({
    boot: async (options) => (await import("./boot")).boot(options),
    python: SERVE_ALL,
    onFatal,
  });
const clients = new HomeClients(newHost, (id) =>
  whenGone(id, () => clients.close(id, "its page was closed")),
);
self.addEventListener("connect", (event) => {
  const [port] = (event as MessageEvent).ports;
  if (port) port.onmessage = ({ data }) => clients.receive(data, (each) => port.postMessage(each));
});
