// The models of a site: models.json beside its scripts.

import { namedModels, type AppConfig, type AppConfigLike } from "./client/config";
import type { ModelRecord } from "./client/messages";

const SCHEME = /^[a-z][a-z0-9.+-]+:/i; // not of a path

/** The catalogue of the site in a folder, its paths made absolute; null if it has none. */
export async function fetchCatalogue(root: URL): Promise<AppConfig | null> {
  const response = await fetch(new URL("models.json", root));
  if (response.status === 404) return null;
  if (!response.ok) throw new Error(`${response.url} cannot be fetched: ${response.status}`);
  const catalogue: AppConfigLike = await response.json();
  const named = namedModels(catalogue);
  if (!named) throw new Error(`${response.url} has no model_list; name the models of this site`);
  const { models: _, ...others } = catalogue;
  return { ...others, model_list: named.map((record) => absolute(record, root)) };
}

function absolute({ model, model_path, ...others }: ModelRecord, root: URL): ModelRecord {
  return {
    ...others,
    ...(model && { model: resolved(model, root) }),
    ...(model_path && { model_path: resolved(model_path, root) }),
  };
}

function resolved(model: string, root: URL): string {
  return SCHEME.test(model) ? model : new URL(model, root).href;
}
