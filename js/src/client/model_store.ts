// What the browser keeps of models: WebLLM's functions, over what the worker's Python stores. The
// layout is that of src/webllm/artifacts/browser_store.py.

import { openBlobs, type Blobs } from "./blobs";
import { ArtifactError, ModelNotFoundError } from "./error_classes";
import { configError } from "./errors";
import type { ModelRecord } from "./messages";
import { modelsOf, prebuiltAppConfig, type AppConfigLike } from "./config";

interface Note {
  size: number;
  part_bytes: number;
  sha256: string | null;
}

/** Whether the model is here, whole. Paths are those of the site that the page is from. */
export async function hasModelInCache(
  modelId: string,
  appConfig: AppConfigLike = prebuiltAppConfig,
): Promise<boolean> {
  const name = await nameOf(modelId, appConfig);
  if (name === undefined) return false;
  const blobs = openBlobs(appConfig);
  const note = await readNote(blobs, name);
  if (!note?.sha256) return false;
  const keys = new Set(await blobs.keys(`${name}.`));
  const numParts = Math.ceil(note.size / note.part_bytes);
  const parts = Array.from({ length: numParts }, (_, part) => String(part).padStart(5, "0"));
  return parts.every((part) => keys.has(`${name}.${part}`));
}

/** Deletes the model, also what came of one that is not whole. */
export async function deleteModelAllInfoInCache(
  modelId: string,
  appConfig: AppConfigLike = prebuiltAppConfig,
): Promise<void> {
  const name = await nameOf(modelId, appConfig);
  if (name === undefined) return;
  const remove = () => deleteFile(openBlobs(appConfig), name);
  if (!navigator.locks) return remove();
  await navigator.locks.request(`webllm ${name}`, { ifAvailable: true }, async (lock) => {
    if (!lock) throw inUse(modelId);
    await remove();
  });
}

/** As deleteModelAllInfoInCache: weights, tokenizer and options are one file. */
export const deleteModelInCache = deleteModelAllInfoInCache;

/** Deletes nothing: a model's chat configuration is in its file, and goes with that. */
export async function deleteChatConfigInCache(
  modelId: string,
  appConfig: AppConfigLike = prebuiltAppConfig,
): Promise<void> {
  find(modelId, appConfig);
}

/** Deletes nothing: the kernels are part of webllm. */
export const deleteModelWasmInCache = deleteChatConfigInCache;

async function deleteFile(blobs: Blobs, name: string): Promise<void> {
  await blobs.delete(`${name}.note`); // first: without it the rest does not count
  for (const key of await blobs.keys(`${name}.`)) await blobs.delete(key);
}

async function readNote(blobs: Blobs, name: string): Promise<Note | undefined> {
  const blob = await blobs.get(`${name}.note`);
  return blob && (JSON.parse(await blob.text()) as Note);
}

/** What a model's file is called in the store; undefined for a file that is never stored. */
async function nameOf(modelId: string, appConfig: AppConfigLike): Promise<string | undefined> {
  const record = find(modelId, appConfig);
  const source = record.model ?? record.model_path ?? "";
  if (source.startsWith("picked:")) return undefined;
  const [place = "", hash] = source.split("#sha256=");
  const sha256 = record.sha256 ?? hash;
  return sha256 ? `sha256-${sha256.toLowerCase()}` : `url-${await digest(urlOf(place))}`;
}

function find(modelId: string, appConfig: AppConfigLike): ModelRecord {
  const models = modelsOf(appConfig);
  const record = models.find((each) => each.model_id === modelId);
  if (record) return record;
  const known = models.map((each) => each.model_id).join(", ");
  throw new ModelNotFoundError({
    name: "ModelNotFoundError",
    message: `no model called "${modelId}"; known are ${known || "none"}`,
    code: "model_not_found",
    status: 404,
  });
}

function urlOf(source: string): string {
  const hub = /^hf:([\w.-]+\/[\w.-]+)(?:@([^/\s]+))?\/(\S+)$/.exec(source);
  if (hub) return `https://huggingface.co/${hub[1]}/resolve/${hub[2] ?? "main"}/${hub[3]}`;
  if (/^pypi:/.test(source)) throw configError(`${source} cannot be kept in a browser`);
  if (/^[a-z][a-z0-9.-]+:/i.test(source)) return source;
  const path = source.endsWith(".gguf") ? source : `${source.replace(/\/+$/, "")}/model.gguf`;
  return new URL(path, location.href).href;
}

async function digest(text: string): Promise<string> {
  const bytes = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function inUse(modelId: string): ArtifactError {
  return new ArtifactError({
    name: "ArtifactError",
    message: `${modelId} is being fetched; end that, then delete it`,
    code: "artifact_error",
    status: 500,
  });
}
