// A Web Worker that serves an engine to the page that made it.

import { WorkerHost } from "./worker_host";

const host = new WorkerHost((message) => self.postMessage(message));
self.onmessage = ({ data }: MessageEvent) => host.receive(data);
