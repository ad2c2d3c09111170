// A SharedWorker that serves all tabs of the site.

import { sharedClients } from "./shared_clients";

const clients = sharedClients();
self.addEventListener("connect", (event) => {
  const [port] = (event as MessageEvent).ports;
  if (port) port.onmessage = ({ data }) => clients.receive(data, (each) => port.postMessage(each));
});
