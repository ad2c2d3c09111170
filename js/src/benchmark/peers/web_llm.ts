// WebLLM from npm: the same model in its own form, which it fetches from its own addresses, or from
// those in the list of records that the page's `?mlc=` names.

import {
  CreateWebWorkerMLCEngine,
  deleteModelAllInfoInCache,
  prebuiltAppConfig,
  type ModelRecord,
  type WebWorkerMLCEngine,
} from "@mlc-ai/web-llm";
import { version } from "@mlc-ai/web-llm/package.json";
import { withoutGpu, type Contender, type Engine } from "../contender";
import { read } from "../reading";

const WORKER = new URL("web_llm_worker.js", import.meta.url);

const DEFAULT_MODEL = "SmolLM2-135M-Instruct-q0f32-MLC";
const given = await givenRecords();
const appConfig = { ...prebuiltAppConfig, model_list: [...given, ...prebuiltAppConfig.model_list] };

/** The models that continue texts: those given, the default, the others. */
export const modelIds = [
  ...given.map(({ model_id }) => model_id),
  DEFAULT_MODEL,
  ...prebuiltAppConfig.model_list
    .filter(({ model_type, model_id }) => !model_type && model_id !== DEFAULT_MODEL)
    .map(({ model_id }) => model_id),
];

async function givenRecords(): Promise<ModelRecord[]> {
  const list = new URLSearchParams(location.search).get("mlc");
  if (list === null) return [];
  const records = (await (await fetch(list)).json()) as ModelRecord[];
  const absolute = (path: string) => new URL(path, document.baseURI).href;
  return records.map((each) => ({
    ...each,
    model: absolute(each.model),
    model_lib: absolute(each.model_lib),
  }));
}

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
    forget: ({ mlcModelId }) => deleteModelAllInfoInCache(mlcModelId, appConfig),
    async start({ mlcModelId }, life) {
      const worker = new Worker(WORKER, { type: "module" });
      life.addEventListener("abort", () => worker.terminate());
      const engine = await CreateWebWorkerMLCEngine(worker, mlcModelId, { appConfig });
      const device = `WebGPU (${await engine.getGPUVendor()}), ${mlcModelId}`;
      return { bootMs: null, device, complete: complete(engine) };
    },
  },
];
