// WebLLM's list of models: fetched when it is looked at, searched, and those that fit chosen.

import type { ModelRecord } from "../client";
import { choose, parseName, variants } from "../client/variants";
import { ROOT } from "./config";
import type { Device } from "./device";
import { fit } from "./fit";

/** Returns the models of WebLLM's list that run; throws if the site's file cannot be fetched. */
export async function fetchListed(): Promise<ModelRecord[]> {
  const response = await fetch(new URL("webllm_models.json", ROOT));
  if (!response.ok) throw new Error(`${response.url}: ${response.status}`);
  const { model_list: records }: { model_list: ModelRecord[] } = await response.json();
  // Python leaves out what is false.
  return records.map((each) => ({ low_resource_required: false, ...each }));
}

/**
 * The models that a list shows. Without a text, those that fit the device, each in the variant for it;
 * with one, all variants whose id has each of its words, those that fit first.
 */
export function found(
  listed: readonly ModelRecord[],
  text: string,
  device: Device | null,
): ModelRecord[] {
  const fits = (each: ModelRecord) => device === null || fit(each, device, false).fits;
  if (text.trim() !== "") {
    const words = text.trim().toLowerCase().split(/\s+/);
    const having = listed.filter((each) => hasWords(each.model_id, words));
    return having.sort((one, other) => +fits(other) - +fits(one));
  }
  const names = new Set(listed.map((each) => parseName(each.model_id)?.model ?? each.model_id));
  const features = device?.gpu?.features ?? null;
  const chosen = [...names].flatMap((name) => choose(variants(name, listed), features) ?? []);
  return chosen.filter(fits);
}

/** A quantization is found by its beginning: "3" is not "q4f32_1". */
function hasWords(modelId: string, words: string[]): boolean {
  const id = modelId.toLowerCase();
  const { model = id, quantization = "", form = "" } = parseName(modelId) ?? {};
  const name = `${model} ${form}`.toLowerCase();
  const has = (word: string) => name.includes(word) || quantization.startsWith(word);
  return words.every((word) => has(word) || id.startsWith(word));
}
