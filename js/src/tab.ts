// A Web Worker of one tab that serves all tabs of the site. Its name is that of their channel.

import { sharedClients } from "./shared_clients";

const channel = new BroadcastChannel(self.name);
const clients = sharedClients();
channel.onmessage = ({ data }) => {
  if (data?.to === undefined) clients.receive(data, (message) => channel.postMessage(message));
};
channel.postMessage({ kind: "here" });
