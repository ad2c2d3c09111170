// WebLLM's functions for stored models. src/webllm/artifacts/browser/store.py stores them and
// defines the layout.

import { openBlobs, type Blobs } from "./blobs";
import { ArtifactError, ModelNotFoundError } from "./error_classes";
import { configError, storeError } from "./errors";
import type { ModelRecord } from "./messages";
import { modelsOf, prebuiltAppConfig, type AppConfigLike } from "./config";

interface Place {
  blobs: Blobs;
  name: string;
}

interface Note {
  size: number;
  part_bytes: number;
  sha256: string; // of a whole file
}

/** Whether the whole model is stored. Paths are those of the page's site. */
export async function hasModelInCache(
  modelId: string,
  appConfig: AppConfigLike = prebuiltAppConfig,
): Promise<boolean> {
  const place = await locate(modelId, appConfig);
  return place !== undefined && stored(() => isWhole(place));
}

/** As `ModelFiles.find` has it: the parts have as many bytes as the note says. */
async function isWhole({ blobs, name }: Place): Promise<boolean> {
  const note = await readNote(blobs, name);
  if (!note) return false;
  const numParts = Math.ceil(note.size / note.part_bytes);
  if ((await blobs.keys(`${name}.`)).length < numParts) return false;
  const keys = Array.from({ length: numParts }, (_, part) => String(part).padStart(5, "0"));
  const sizes = await Promise.all(keys.map((key) => blobs.size(`${name}.${key}`)));
  return sizes.reduce((sum, size) => sum + size, 0) === note.size;
}

/** Deletes the model, even if only a part of it is stored. */
export async function deleteModelAllInfoInCache(
  modelId: string,
  appConfig: AppConfigLike = prebuiltAppConfig,
): Promise<void> {
  const place = await locate(modelId, appConfig);
  if (place === undefined) return;
  const remove = () => stored(() => deleteFile(place));
  if (!navigator.locks) return remove();
  await navigator.locks.request(`webllm ${place.name}`, { ifAvailable: true }, async (lock) => {
    if (!lock) throw inUse(modelId);
    await remove();
  });
}

/** As deleteModelAllInfoInCache: weights, tokenizer and options are one file. */
export const deleteModelInCache = deleteModelAllInfoInCache;

/** Deletes nothing: a model's chat configuration is part of its file. */
export async function deleteChatConfigInCache(
  modelId: string,
  appConfig: AppConfigLike = prebuiltAppConfig,
): Promise<void> {
  find(modelId, appConfig);
}

/** Deletes nothing: the kernels are part of webllm. */
export const deleteModelWasmInCache = deleteChatConfigInCache;

/** Awaits a store's answer. Throws ArtifactError if the store fails. */
async function stored<Result>(ask: () => Promise<Result>): Promise<Result> {
  try {
    return await ask();
  } catch (error) {
    throw error instanceof DOMException ? storeError(error) : error;
  }
}

async function deleteFile({ blobs, name }: Place): Promise<void> {
  await blobs.delete(`${name}.note`); // first: without it the rest does not count
  for (const key of await blobs.keys(`${name}.`)) await blobs.delete(key);
}

/** undefined if the note is missing, damaged or just being replaced by a worker. */
async function readNote(blobs: Blobs, name: string): Promise<Note | undefined> {
  const blob = await blobs.get(`${name}.note`);
  try {
    const note = JSON.parse((await blob?.text()) ?? "null") as Partial<Note> | null;
    const isNote = isCount(note?.size) && isCount(note.part_bytes) && note.part_bytes > 0;
    return isNote && typeof note.sha256 === "string" ? (note as Note) : undefined;
  } catch {
    return undefined;
  }
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** The URL of a model's file; undefined if it is never stored. */
async function locate(modelId: string, appConfig: AppConfigLike): Promise<Place | undefined> {
  const record = find(modelId, appConfig);
  const blobs = openBlobs(appConfig);
  const name = blobs && (await nameOf(record));
  return blobs && name ? { blobs, name } : undefined;
}

/** The name of a model's file in a store; undefined if it is never stored. */
async function nameOf(record: ModelRecord): Promise<string | undefined> {
  const source = record.model || record.model_path || "";
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
  if (!crypto.subtle) {
    throw configError(
      `${text} cannot be looked up: browsers hash on https and localhost only; serve the page so, ` +
        "or give the record the file's sha256",
    );
  }
  const bytes = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function inUse(modelId: string): ArtifactError {
  return new ArtifactError({
    name: "ArtifactError",
    message: `${modelId} is being downloaded; stop that, then delete it`,
    code: "artifact_error",
    status: 500,
  });
}
