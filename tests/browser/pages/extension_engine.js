// What the tests of an extension's engine call in its pages.

import * as webllm from "./client.js";

/** When chunks have come, in ms since 1970. */
export const arrivals = [];
export const reports = [];
export const disconnects = [];

const model_list = [{ model_id: "smollm2", model: "/models/smollm2.gguf" }];

/** Loads the model. Returns where the engine runs. */
export async function connect(config = {}) {
  const options = {
    appConfig: { model_list, cacheBackend: "none" },
    initProgressCallback: (report) => reports.push(report),
    onDisconnect: () => disconnects.push(Date.now()),
    ...config,
  };
  globalThis.engine = await webllm.CreateExtensionServiceWorkerMLCEngine("smollm2", options);
  return engine.host;
}

/** Streams one text completion. Returns each choice's text and reason, by its index. */
export async function stream(request) {
  const choices = {};
  const asked = { ...request, ignore_eos: true, stream: true };
  for await (const chunk of await engine.completions.create(asked)) {
    arrivals.push(Date.now());
    for (const { index, text, finish_reason } of chunk.choices) {
      const choice = (choices[index] ??= { text: "", reason: null });
      choice.text += text;
      choice.reason = finish_reason;
    }
  }
  return choices;
}

/** Answers all requests at once. */
export function answers(requests) {
  return Promise.all(requests.map((each) => stream(each)));
}

Object.assign(globalThis, { webllm, arrivals, reports, disconnects, connect, stream, answers });
