// The engine is behind background.js, and stays while the popup is closed.

import { CreateExtensionServiceWorkerMLCEngine } from "./webllm/client.js";

export const createEngine = (model, config) => CreateExtensionServiceWorkerMLCEngine(model, config);
