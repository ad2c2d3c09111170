// A Web Worker of one tab that serves all tabs of the site. Its name is that of their channel.

import { EngineHost } from "./engine_host";
import { HomeClients } from "./home_clients";
import { whenGone } from "./presence";
import { SERVE_ALL } from "./serving";

const channel = new BroadcastChannel(self.name);
const newHost = (onFatal: () => void) =>
  new EngineHost({
    boot: async (options) => (await import("./boot")).boot(options),
    python: SERVE_ALL,
    onFatal,
  });
const clients = new HomeClients(newHost, (id) =>
  whenGone(id, () => clients.close(id, "its page was closed")),
);
channel.onmessage = ({ data }) => {
  if (data?.to === undefined) clients.receive(data, (message) => channel.postMessage(message));
};
channel.postMessage({ kind: "here" });
