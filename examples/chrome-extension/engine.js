// The engine runs in a worker of the popup, while that is open.

import { CreateMLCEngine } from "./webllm/client.js";

export const createEngine = (model, config) =>
  CreateMLCEngine(model, { root: "/webllm/", ...config });
