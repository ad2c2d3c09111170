// The page's worker and list of models, which lie beside its script.

import { fetchCatalogue } from "../catalogue";
import type { AppConfig } from "../client";

const ROOT = new URL("./", import.meta.url);
export const WORKER = new URL("worker.js", ROOT);

/** The catalogue of this site. */
export async function loadAppConfig(): Promise<AppConfig> {
  const catalogue = await fetchCatalogue(ROOT);
  if (catalogue === null) throw new Error(`${ROOT.href} has no models.json`);
  return catalogue;
}
