// The site's files that the page needs, all beside its script: the worker and the catalogue.

import { fetchCatalogue } from "../catalogue";
import type { AppConfig } from "../client";

const ROOT = new URL("./", import.meta.url);
export const WORKER_URL = new URL("worker.js", ROOT);

/** Returns the catalogue of this site; throws if it has none. */
export async function loadAppConfig(): Promise<AppConfig> {
  const catalogue = await fetchCatalogue(ROOT);
  if (catalogue === null) throw new Error(`${ROOT.href} has no models.json`);
  return catalogue;
}
