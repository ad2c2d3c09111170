// The site's files that the page needs, all beside its script: the workers and the catalogue.

import { fetchCatalogue } from "../catalogue";
import type { AppConfig } from "../client";

export const ROOT = new URL("./", import.meta.url);

/** Returns the catalogue of this site; throws if it has none. */
export async function loadAppConfig(): Promise<AppConfig> {
  const catalogue = await fetchCatalogue(ROOT);
  if (catalogue === null) throw new Error(`${ROOT.href} has no models.json`);
  return catalogue;
}
