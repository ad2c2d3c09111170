// Catalogues: lists of models. That of a site is its models.json.

import { namedModels, type AppConfig, type AppConfigLike } from "./client/config";
import type { ModelRecord } from "./client/messages";

const SCHEME = /^[a-z][a-z0-9.+-]+:/i; // "https:", "hf:", "pypi:"

/**
 * Returns the catalogue of the site at `root`, or null if the site has none. Paths of models, which
 * are relative to `root`, become URLs.
 */
export async function fetchCatalogue(root: URL): Promise<AppConfig | null> {
  const response = await fetch(new URL("models.json", root));
  if (response.status === 404) return null;
  if (!response.ok) throw new Error(`${response.url} cannot be fetched: ${response.status}`);
  const catalogue: AppConfigLike = await response.json();
  const records = namedModels(catalogue);
  if (!records) throw new Error(`${response.url} has no model_list; name the models of this site`);
  const { models: _, ...others } = catalogue; // another name of model_list
  return { ...others, model_list: records.map((record) => withUrl(record, root)) };
}

/** The catalogue with URLs in place of paths that are relative to `root`, for a worker elsewhere. */
export function withUrls(catalogue: AppConfigLike, root: URL): AppConfigLike {
  const { models, model_list, ...others } = catalogue;
  return {
    ...others,
    ...(models && { models: models.map((record) => withUrl(record, root)) }),
    ...(model_list && { model_list: model_list.map((record) => withUrl(record, root)) }),
  };
}

function withUrl({ model, model_path, ...others }: ModelRecord, root: URL): ModelRecord {
  return {
    ...others,
    ...(model && { model: toUrl(model, root) }),
    ...(model_path && { model_path: toUrl(model_path, root) }),
  };
}

function toUrl(source: string, root: URL): string {
  return SCHEME.test(source) ? source : new URL(source, root).href;
}
