// Where the page finds its worker and its models: beside its own script.

import type { AppConfig } from "../client";

export const WORKER = new URL("worker.js", import.meta.url);
const MODELS = new URL("models.json", import.meta.url);

/** The catalogue of this site. */
export async function loadAppConfig(): Promise<AppConfig> {
  const response = await fetch(MODELS);
  if (!response.ok) throw new Error(`${MODELS.href} cannot be fetched: ${response.status}`);
  return (await response.json()) as AppConfig;
}
