// Writes ../src/webllm/webllm_list.json, the facts of WebLLM's list of models, from the npm package
// @mlc-ai/web-llm in node_modules. Run by hand, when package.json names a new version of it:
//
//   node js/webllm_list.mjs           writes the file
//   node js/webllm_list.mjs --check   compares it with the package, record by record
//
// A model of an architecture that has no row below ends the script: give it one, here and in
// src/webllm/webllm_list.py.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import * as webllm from "@mlc-ai/web-llm";
import { format } from "prettier";

const FILE = new URL("../src/webllm/webllm_list.json", import.meta.url);
const HUB = "https://huggingface.co/mlc-ai/";
// The package does not say it. As `model_type` of each model's mlc-chat-config.json; ids match one row.
const ARCHITECTURES = {
  llama: /Llama|^SmolLM2-/,
  mistral: /Mistral-7B|^WizardMath-7B/,
  qwen2: /^Qwen2|-Distill-Qwen-/,
  qwen3: /^Qwen3-/,
  qwen3_5: /^Qwen3\.5-/,
  gemma: /^gemma-2b-/,
  gemma2: /^gemma-2-/,
  gemma3_text: /^gemma3-1b-/,
  gemma4: /^gemma-4-/,
  phi: /^phi-/,
  phi3: /^Phi-[34].*mini/,
  phi3_v: /^Phi-.*-vision-/,
  ministral3: /^Ministral-3-/,
  olmo2: /^OLMo-2-/,
  stablelm: /^stablelm-/,
  gpt_neox: /^RedPajama-/,
  bert: /^snowflake-arctic-embed-/,
};

const { model_list } = webllm.prebuiltAppConfig;
if (process.argv.includes("--check")) {
  const { models, ...others } = JSON.parse(await readFile(FILE, "utf8"));
  assert.deepEqual(others, await head());
  assert.deepEqual(models.map(record), model_list.map(withoutLibrary));
  console.log(`${FILE.pathname} has the ${models.length} models of ${others.package}`);
} else {
  const list = { ...(await head()), models: model_list.map(row) };
  assert.deepEqual(list.models.map(record), model_list.map(withoutLibrary));
  await writeFile(FILE, await format(JSON.stringify(list), { parser: "json", printWidth: 100 }));
  console.log(`${FILE.pathname}: ${list.models.length} models`);
}

async function head() {
  const file = new URL("node_modules/@mlc-ai/web-llm/package.json", import.meta.url);
  const { name, version } = JSON.parse(await readFile(file, "utf8"));
  return {
    package: `${name} ${version}`,
    modelVersion: webllm.modelVersion,
    modelLibURLPrefix: webllm.modelLibURLPrefix,
    functionCallingModelIds: webllm.functionCallingModelIds,
  };
}

/** [id, architecture, vram_required_MB, low_resource_required, context window, what few have] */
function row(model) {
  const { model: _, model_id, overrides, ...given } = withoutLibrary(model);
  const { vram_required_MB, low_resource_required, ...others } = given;
  const { context_window_size = null, ...options } = overrides ?? {};
  const few = { ...others, ...(Object.keys(options).length && { overrides: options }) };
  const facts = [architecture(model_id), vram_required_MB, low_resource_required];
  const columns = [model_id, ...facts, context_window_size];
  return Object.keys(few).length ? [...columns, few] : columns;
}

/** The inverse of `row`, as webllm_list.py has it. */
function record([model_id, , vram_required_MB, low_resource_required, context, few = {}]) {
  const overrides = { ...(context && { context_window_size: context }), ...few.overrides };
  return {
    model: HUB + model_id.replace(/-MLC-.*$/, "-MLC"), // "…-MLC-1k" has the weights of "…-MLC"
    model_id,
    vram_required_MB,
    low_resource_required,
    ...few,
    ...(Object.keys(overrides).length && { overrides }),
  };
}

/** Without the kernels, which are part of webllm. */
function withoutLibrary({ model_lib: _, ...model }) {
  return { low_resource_required: false, ...model };
}

function architecture(modelId) {
  const found = Object.keys(ARCHITECTURES).filter((name) => ARCHITECTURES[name].test(modelId));
  assert.equal(
    found.length,
    1,
    `${modelId} matches the architectures [${found}]; correct the rows`,
  );
  return found[0];
}
