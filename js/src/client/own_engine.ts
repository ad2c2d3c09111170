// `MLCEngine`: an engine that creates its own worker.

import type { MLCEngineConfig } from "./config";
import { workerEndpoint, type Endpoint } from "./endpoint";
import { WebWorkerMLCEngine } from "./engine";
import { refuseLogitProcessors } from "./logit_processor";
import { UNANSWERED, type AnyRequest, type ChatOptions } from "./messages";
import { fileAt, notServed, type Root } from "./root";

/** `root` says where webllm's files are served, see `WebWorkerMLCEngineHandler`. */
export interface OwnEngineConfig extends MLCEngineConfig {
  root?: Root;
}

/**
 * Computes in its own worker, so that the page never waits for Python. The first call creates the
 * worker, so that an engine can be constructed where there are no workers, as on a server. The
 * worker lives until `terminate`.
 */
export class MLCEngine extends WebWorkerMLCEngine {
  constructor(config: OwnEngineConfig = {}) {
    refuseLogitProcessors(config.logitProcessorRegistry); // before there is a worker to end
    super(
      lazily(() => workerAt(fileAt("worker.js", config.root))),
      config,
    );
  }
}

const CAN_WAIT = new Set(["hello", "interruptGenerate", ...UNANSWERED]);

/** A worker that is created for the first message that needs an answer. */
function lazily(make: () => Endpoint): Endpoint {
  const early: AnyRequest[] = [];
  let endpoint: Endpoint | undefined;
  let listeners: Parameters<Endpoint["listen"]>;
  return {
    post(message) {
      if (endpoint) return endpoint.post(message);
      early.push(structuredClone(message)); // as it is now; throws as `post` does
      if (CAN_WAIT.has(message.kind)) return;
      try {
        endpoint = make();
      } catch (error) {
        return listeners[1](`it could not be made here: ${String(error)}`);
      }
      endpoint.listen(...listeners);
      for (const each of early.splice(0)) endpoint.post(each);
    },
    listen: (...given) => void (listeners = given),
    close: () => endpoint?.close(),
  };
}

/** A worker that sends nothing, not even hello, most likely could not load its script. */
function workerAt(script: URL): Endpoint {
  const endpoint = workerEndpoint(new Worker(script, { type: "module" }));
  let hasSpoken = false;
  return {
    ...endpoint,
    listen(onMessage, onLost) {
      endpoint.listen(
        (message) => {
          hasSpoken = true;
          onMessage(message);
        },
        (reason) => onLost(hasSpoken ? reason : `${reason}; ${notServed(script, WITH_ROOT)}`),
      );
    },
  };
}

const WITH_ROOT = 'CreateMLCEngine(modelId, { root: "/webllm/" })';

/** Creates an engine and loads one or more models. */
export async function CreateMLCEngine(
  modelId: string | string[],
  engineConfig?: OwnEngineConfig,
  chatOpts?: ChatOptions | ChatOptions[],
): Promise<MLCEngine> {
  const engine = new MLCEngine(engineConfig);
  try {
    await engine.reload(modelId, chatOpts);
  } catch (error) {
    engine.terminate(); // nobody else can
    throw error;
  }
  return engine;
}
