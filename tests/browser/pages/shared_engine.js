// What the tests of an engine that all pages of a site share call in its pages.

import { CreateServiceWorkerMLCEngine } from "/client.js";

/** When chunks have come, in ms since 1970. */
export const arrivals = [];
export const reports = [];
let engine;

const model_list = [{ model_id: "smollm2", model: "/models/smollm2.gguf" }];

export async function register(script = "/service_worker.js") {
  await navigator.serviceWorker.register(script, { type: "module", scope: "/" });
}

/** Loads the model in the home that `config.host` forces. Returns the home. */
export async function connect(config = {}, keepAliveMs = undefined) {
  const initProgressCallback = (report) => reports.push(report);
  const all = { appConfig: { model_list }, root: "/", initProgressCallback, ...config };
  engine = await CreateServiceWorkerMLCEngine("smollm2", all, {}, keepAliveMs);
  globalThis.engine = engine;
  return engine.host;
}

/** Streams one text completion. Returns each choice's text, tokens and reason, by its index. */
export async function stream(request, onChunk = () => {}) {
  const choices = {};
  const extra_body = { return_token_ids: true, ...request.extra_body };
  const asked = { ...request, ignore_eos: true, stream: true, extra_body };
  for await (const chunk of await engine.completions.create(asked)) {
    arrivals.push(Date.now());
    for (const { index, text, token_ids, finish_reason } of chunk.choices) {
      const choice = (choices[index] ??= { text: "", tokens: [], reason: null });
      if (choice.reason !== null) throw new Error(`choice ${index} went on after its end`);
      choice.text += text;
      choice.tokens.push(...(token_ids ?? []));
      choice.reason = finish_reason;
    }
    onChunk(choices);
  }
  return choices;
}

/** Answers all requests at once. */
export function answers(requests) {
  return Promise.all(requests.map((each) => stream(each)));
}

/** The numbers of answers under way and of free blocks, of the one model. */
export async function load() {
  const [stats] = (await engine.getEngineStats()).models;
  return stats;
}
