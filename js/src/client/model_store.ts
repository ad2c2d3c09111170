// WebLLM's functions for stored models. stores.js stores them, here and in Python.

import { askToKeep, ModelFile, openBlobs } from "../../../src/webllm/artifacts/browser/stores.js";
import { ModelNotFoundError } from "./error_classes";
import { errorInfo } from "./error_base";
import { configError, stored } from "./errors";
import type { ModelRecord } from "./messages";
import { modelsOf, prebuiltAppConfig, type AppConfigLike } from "./config";

/** Whether the whole model is stored. Paths are those of the page's site. */
export async function hasModelInCache(
  modelId: string,
  appConfig: AppConfigLike = prebuiltAppConfig,
): Promise<boolean> {
  return stored(async () => (await locate(modelId, appConfig)?.has()) ?? false);
}

/** Deletes the model, even if only a part of it is stored. */
export async function deleteModelAllInfoInCache(
  modelId: string,
  appConfig: AppConfigLike = prebuiltAppConfig,
): Promise<void> {
  await stored(async () => locate(modelId, appConfig)?.delete());
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

/** Asks the browser not to evict this site's storage, unless models are not stored. */
export function askToKeepModels(appConfig?: AppConfigLike): void {
  if (appConfig?.cacheBackend !== "none") askToKeep();
}

/** A configuration with another store, whichever spelling names the one that it has. */
export function withStore<Config extends AppConfigLike>(
  appConfig: Config,
  cacheBackend: NonNullable<AppConfigLike["cacheBackend"]>,
): Config {
  return { ...appConfig, cacheBackend, useIndexedDBCache: false, useIndexedDB: false };
}

/** The store that a configuration names, in any of WebLLM's spellings; null if it names none. */
export function namedStore(appConfig: AppConfigLike): string | null {
  const { cacheBackend, useIndexedDBCache, useIndexedDB } = appConfig;
  if (!useIndexedDBCache && !useIndexedDB) return cacheBackend ?? null;
  if (!cacheBackend || cacheBackend === "indexeddb") return "indexeddb";
  throw configError(
    `cacheBackend is "${cacheBackend}" and useIndexedDBCache true; give one of them`,
  );
}

/** The file of a model; undefined if it is never stored. */
function locate(modelId: string, appConfig: AppConfigLike): ModelFile | undefined {
  const record = find(modelId, appConfig);
  const blobs = openBlobs(namedStore(appConfig));
  const source = record.model || record.model_path || "";
  if (source.startsWith("picked:")) return undefined;
  const [place = "", hash] = source.split("#sha256=");
  return new ModelFile(blobs, urlOf(place), record.sha256 ?? hash ?? null);
}

function find(modelId: string, appConfig: AppConfigLike): ModelRecord {
  const models = modelsOf(appConfig);
  const record = models.find((each) => each.model_id === modelId);
  if (record) return record;
  const known = models.map((each) => each.model_id).join(", ");
  const message = `no model called "${modelId}"; known are ${known || "none"}`;
  throw new ModelNotFoundError(errorInfo("ModelNotFoundError", message));
}

const HUB = /^hf:([\w.-]+\/[\w.-]+)(?:@(refs\/(?:pr\/\d+|convert\/[^/\s]+)|[^/\s]+))?\/(\S+)$/;

/** The URL of a source, as artifacts/source.py has it in Python. */
function urlOf(source: string): string {
  const [, repository, revision = "main", file] = HUB.exec(source) ?? [];
  if (repository && file) {
    const decoded = revision.replace(/%2f/gi, "/").replaceAll("%25", "%");
    const path = file.split("/").map(quoted).join("/");
    return `https://huggingface.co/${repository}/resolve/${quoted(decoded)}/${path}`;
  }
  if (/^pypi:/.test(source)) throw configError(`${source} cannot be kept in a browser`);
  if (/^[a-z][a-z0-9.-]+:/i.test(source)) return source;
  const path = source.endsWith(".gguf") ? source : `${source.replace(/\/+$/, "")}/model.gguf`;
  return new URL(path, location.href).href;
}

/** As Python's `quote`: encodeURIComponent leaves some characters that it does not. */
function quoted(text: string): string {
  const hex = (character: string) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`;
  return encodeURIComponent(text).replace(/[!'()*]/g, hex);
}
