// The next version of a site's Service Worker, which takes over at once.

import "/service_worker.js";

self.addEventListener("install", () => self.skipWaiting());
