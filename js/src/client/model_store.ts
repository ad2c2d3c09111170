// Stored models. stores.js stores them, here and in Python.

import {
  askToKeep,
  ModelFile,
  ModelSet,
  openBlobs,
} from "../../../src/webllm/artifacts/browser/stores.js";
import { ModelNotFoundError } from "./error_classes";
import { errorInfo } from "./error_base";
import { configError, stored } from "./errors";
import type { ModelRecord } from "./messages";
import { namedModels, type AppConfigLike } from "./config";
import { choose, gpuFeatures, variants } from "./variants";

const MAX_LISTED = 4; // ids in an error

/**
 * Whether the whole model is stored. Paths are those of the page's site. An id without its
 * quantization stands for the variant that this browser loads.
 */
export async function hasStoredModel(modelId: string, appConfig: AppConfigLike): Promise<boolean> {
  return stored(async () => {
    for (const place of await locate(modelId, appConfig)) if (await place.has()) return true;
    return false;
  });
}

/** Deletes the model, even if only a part of it is stored. */
export async function deleteStoredModel(modelId: string, appConfig: AppConfigLike): Promise<void> {
  await stored(async () => {
    for (const place of await locate(modelId, appConfig)) await place.delete();
  });
}

/** Asks the browser not to evict this site's storage, unless models are not stored. */
export function askToKeepModels(appConfig?: AppConfigLike): void {
  if (appConfig?.cacheBackend !== "none") void askToKeep();
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

/** Where a model may be stored: it is one file or a set of them. Nowhere, if it is never stored. */
async function locate(
  modelId: string,
  appConfig: AppConfigLike,
): Promise<(ModelFile | ModelSet)[]> {
  const record = await findModel(modelId, appConfig);
  const blobs = openBlobs(namedStore(appConfig));
  const source = record.model || record.model_path || "";
  if (source.startsWith("picked:")) return [];
  const [place = "", itsHash] = source.split("#sha256=");
  const hash = record.sha256 ?? itsHash ?? null;
  const url = urlOf(place, hash !== null);
  return [new ModelSet(blobs, url), new ModelFile(blobs, url, hash)];
}

/** Returns a model's record; throws ModelNotFoundError. */
export async function findModel(modelId: string, appConfig: AppConfigLike): Promise<ModelRecord> {
  const models = namedModels(appConfig) ?? [];
  const record = models.find((each) => each.model_id === modelId);
  if (record) return record;
  const choice = variants(modelId, models);
  const chosen = choice.length > 1 ? choose(choice, await gpuFeatures()) : choice[0];
  if (chosen) return chosen;
  const known = models.slice(0, MAX_LISTED).map((each) => each.model_id);
  const more = models.length > MAX_LISTED ? ` and ${models.length - MAX_LISTED} more` : "";
  const message = `no model called "${modelId}"; known are ${known.join(", ") || "none"}${more}`;
  throw new ModelNotFoundError(errorInfo("ModelNotFoundError", message));
}

const REVISION = String.raw`(refs/(?:pr/\d+|convert/[^/\s]+)|[^/\s:?]+)`;
const HUB = new RegExp(String.raw`^hf:([\w.-]+/[\w.-]+)(?:@${REVISION})?(?:/(\S*)|:([\w.-]+))?$`);
const HUB_PAGE = new RegExp(
  String.raw`^https://huggingface\.co/(?!datasets/|spaces/)([\w.-]+/[\w.-]+)` +
    String.raw`(?:/(?:tree|blob|resolve)/${REVISION}(?:/([^?]*))?)?/?$`,
);
const ENTRY = /(\.gguf|\.safetensors|(^|\/)(mlc-chat-config|model\.safetensors\.index)\.json)$/;

/** The URL of a file or folder, as artifacts/source.py has it in Python. */
function urlOf(source: string, isFile: boolean): string {
  if (/^pypi:/.test(source)) throw configError(`${source} cannot be kept in a browser`);
  const page = HUB_PAGE.exec(source); // its path is quoted
  const [, repository, revision = "main", path = "", quantization] = HUB.exec(source) ?? page ?? [];
  if (repository) {
    const decoded = revision.replace(/%2f/gi, "/").replaceAll("%25", "%");
    const name = path === "" || isFile ? path : asFolder(path);
    const file = page ? name : name.split("/").map(quoted).join("/");
    const end = quantization ? `:${quantization}` : "";
    return `https://huggingface.co/${repository}/resolve/${quoted(decoded)}/${file}${end}`;
  }
  const url = new URL(source, location.href);
  return isFile || url.search ? url.href : asFolder(url.href);
}

/** The address of a file, or that of a folder with a slash at its end. */
function asFolder(path: string): string {
  return ENTRY.test(path) ? path : `${path.replace(/\/+$/, "")}/`;
}

/** As Python's `quote`: encodeURIComponent leaves some characters that it does not. */
function quoted(text: string): string {
  const hex = (character: string) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`;
  return encodeURIComponent(text).replace(/[!'()*]/g, hex);
}
