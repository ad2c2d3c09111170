// What the tests of WebLLM's npm client call in an extension's page.

import * as webllm from "./npm.js";

export async function connect({ modelId = "smollm2", ...config } = {}) {
  const record = { model: "/models/smollm2.gguf", model_id: "smollm2", model_lib: "" };
  const appConfig = { model_list: [record], cacheBackend: "none" };
  globalThis.disconnects = 0;
  globalThis.engine = await webllm.CreateExtensionServiceWorkerMLCEngine(modelId, {
    appConfig,
    onDisconnect: () => (globalThis.disconnects += 1),
    ...config,
  });
}

export async function whole(request) {
  return (await engine.chat.completions.create(request)).choices[0].message.content;
}

/** Returns the text; leaves the stream after `most` chunks. */
export async function streamed(request, most = Infinity) {
  let [text, num] = ["", 0];
  for await (const { choices } of await engine.chat.completions.create({
    ...request,
    stream: true,
  })) {
    globalThis.numChunks += 1;
    text += choices[0]?.delta.content ?? "";
    if ((num += 1) >= most) break;
  }
  return text;
}

Object.assign(globalThis, { webllm, connect, whole, streamed, numChunks: 0 });
