// wllama: llama.cpp as WebAssembly, from npm, on the same file.

import { LoggerWithoutDebug, Wllama } from "@wllama/wllama/esm/index.js";
import { version } from "@wllama/wllama/package.json";
import {
  modelUrl,
  withoutGpu,
  withoutThreads,
  type Contender,
  type Engine,
  type Machine,
  type Settings,
} from "../contender";
import { read } from "../reading";

const WASM = new URL("wllama.wasm", import.meta.url).href;
const logger = { ...LoggerWithoutDebug, log: () => {}, warn: () => {} };

interface Place {
  comparedWith: string;
  threads: (settings: Settings) => number;
  gpuLayers: number;
  obstacle: (machine: Machine) => string;
}

function contender(id: string, name: string, place: Place): Contender {
  return {
    id,
    name,
    version,
    comparedWith: place.comparedWith,
    obstacle: ({ model }, machine) => foreign(modelUrl(model)) || place.obstacle(machine),
    forget: ({ model }) => open().cacheManager.delete(modelUrl(model).href),
    async start(settings, life) {
      const wllama = open();
      const close = () => void wllama.exit();
      life.addEventListener("abort", close);
      await wllama.loadModelFromUrl(modelUrl(settings.model).href, {
        n_threads: place.threads(settings),
        n_gpu_layers: place.gpuLayers,
        n_ctx: Math.max(1024, 2 * (settings.promptTokens + settings.maxTokens)),
      });
      const device = place.gpuLayers ? "WebGPU" : `CPU (${wllama.getNumThreads()} threads)`;
      if (life.aborted) close(); // while it fetched, there was nothing to be closed
      return { bootMs: null, device, complete: complete(wllama) };
    },
  };
}

function open(): Wllama {
  return new Wllama({ default: WASM }, { suppressNativeLog: true, logger });
}

function foreign({ protocol }: URL): string {
  return protocol.startsWith("http") ? "" : "it takes models from URLs only";
}

function complete(wllama: Wllama): Engine["complete"] {
  return async (prompt, max_tokens, onText) => {
    const request = { prompt, max_tokens, temperature: 0, ignore_eos: true } as const;
    const chunks = await wllama.createCompletion({ ...request, stream: true, ...WITH_USAGE });
    return read(chunks, onText);
  };
}

const WITH_USAGE = { stream_options: { include_usage: true } };

export const contenders: Contender[] = [
  contender("wllama", "wllama, CPU, one thread", {
    comparedWith: "webllm-cpu",
    threads: () => 1,
    gpuLayers: 0,
    obstacle: () => "",
  }),
  contender("wllama-threads", "wllama, CPU, threads", {
    comparedWith: "webllm-threads",
    threads: ({ numThreads }) => numThreads,
    gpuLayers: 0,
    obstacle: withoutThreads,
  }),
  contender("wllama-webgpu", "wllama, WebGPU", {
    comparedWith: "webllm-webgpu",
    threads: () => 1,
    gpuLayers: 99_999,
    obstacle: withoutGpu,
  }),
];
