// webllm: Python in a worker, used through our client as in any page.

import { WebWorkerMLCEngine } from "../client";
import {
  withoutGpu,
  withoutThreads,
  type Contender,
  type Engine,
  type Machine,
  type Settings,
} from "./contender";
import { read } from "./reading";

const WORKER = new URL("benchmark_worker.js", import.meta.url);

interface Place {
  device: "cpu" | "webgpu";
  threads: (settings: Settings) => number;
  obstacle: (machine: Machine) => string;
}

function contender(id: string, name: string, place: Place): Contender {
  return {
    id,
    name,
    version: "",
    comparedWith: id,
    obstacle: (_, machine) => place.obstacle(machine),
    async forget(settings) {
      const life = new AbortController();
      const { model, sha256 } = settings.model;
      const source = sha256 ? `${model}#sha256=${sha256}` : model;
      await open(place, settings, life.signal).customRequest("forget", source);
      life.abort();
    },
    async start(settings, life) {
      const begun = performance.now();
      const engine = open(place, settings, life);
      const booted = engine.customRequest("boot").then(() => performance.now() - begun);
      const [bootMs] = await Promise.all([booted, engine.reload(settings.model.model_id)]);
      return { bootMs, device: await engine.getDeviceName(), complete: complete(engine) };
    },
  };
}

function open(place: Place, settings: Settings, life: AbortSignal): WebWorkerMLCEngine {
  const url = new URL(WORKER);
  url.searchParams.set("device", place.device);
  url.searchParams.set("threads", String(place.threads(settings)));
  const worker = new Worker(url, { type: "module" });
  life.addEventListener("abort", () => worker.terminate());
  return new WebWorkerMLCEngine(worker, { appConfig: { model_list: [settings.model] } });
}

function complete(engine: WebWorkerMLCEngine): Engine["complete"] {
  return async (prompt, max_tokens, onText) => {
    const request = { prompt, max_tokens, temperature: 0, ignore_eos: true } as const;
    const stream_options = { include_usage: true };
    const chunks = await engine.completions.create({ ...request, stream: true, stream_options });
    return read(chunks, onText);
  };
}

const one = () => 1;
const many = ({ numThreads }: Settings) => numThreads;

export const OURS: Contender[] = [
  contender("webllm-cpu", "webllm, CPU, one thread", {
    device: "cpu",
    threads: one,
    obstacle: () => "",
  }),
  contender("webllm-threads", "webllm, CPU, threads", {
    device: "cpu",
    threads: many,
    obstacle: withoutThreads,
  }),
  contender("webllm-webgpu", "webllm, WebGPU", {
    device: "webgpu",
    threads: one,
    obstacle: withoutGpu,
  }),
];
