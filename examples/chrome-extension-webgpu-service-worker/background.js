// Passes messages between the extension's pages and the engine, which is in the offscreen document.

import { ExtensionServiceWorkerMLCEngineHandler } from "./webllm/extension_service_worker.js";

let handler;
chrome.runtime.onConnect.addListener((port) => {
  if (handler) handler.setPort(port);
  else handler = new ExtensionServiceWorkerMLCEngineHandler(port, { root: "webllm/" });
  port.onMessage.addListener(handler.onmessage.bind(handler));
});
