// WebLLM from npm: the same model in its own form, which it fetches from its own addresses.

import {
  CreateWebWorkerMLCEngine,
  deleteModelAllInfoInCache,
  prebuiltAppConfig,
  type WebWorkerMLCEngine,
} from "@mlc-ai/web-llm";
import { version } from "@mlc-ai/web-llm/package.json";
import { withoutGpu, type Contender, type Engine } from "../contender";
import { read } from "../reading";

const WORKER = new URL("web_llm_worker.js", import.meta.url);

/** The models of its catalogue that continue texts. */
export const modelIds = prebuiltAppConfig.model_list
  .filter(({ model_type }) => !model_type)
  .map(({ model_id }) => model_id);

function complete(engine: WebWorkerMLCEngine): Engine["complete"] {
  return async (prompt, max_tokens, onText) => {
    const request = { prompt, max_tokens, temperature: 0, ignore_eos: true } as const;
    const stream_options = { include_usage: true };
    return read(
      await engine.completions.create({ ...request, stream: true, stream_options }),
      onText,
    );
  };
}

export const contenders: Contender[] = [
  {
    id: "web-llm",
    name: "WebLLM, WebGPU",
    version,
    comparedWith: "webllm-webgpu",
    obstacle: (_, machine) => withoutGpu(machine),
    forget: ({ mlcModelId }) => deleteModelAllInfoInCache(mlcModelId, prebuiltAppConfig),
    async start({ mlcModelId }, life) {
      const worker = new Worker(WORKER, { type: "module" });
      life.addEventListener("abort", () => worker.terminate());
      const engine = await CreateWebWorkerMLCEngine(worker, mlcModelId);
      const device = `WebGPU (${await engine.getGPUVendor()}), ${mlcModelId}`;
      return { bootMs: null, device, complete: complete(engine) };
    },
  },
];
