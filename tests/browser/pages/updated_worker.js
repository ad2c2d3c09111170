// The next version of the site's Service Worker, which takes over at once.

import { ServiceWorkerMLCEngineHandler } from "/service_worker.js";

new ServiceWorkerMLCEngineHandler({ root: "/" });
self.addEventListener("install", () => self.skipWaiting());
