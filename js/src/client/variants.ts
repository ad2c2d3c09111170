// Ids without the end that names the quantization, as config.py has them in Python.

import type { ModelRecord } from "./messages";

const QUANTIZATIONS = ["q4f16_1", "q4f32_1", "q0f16", "q0f32", "q3f16_1"]; // the preferred first
const ID = new RegExp(`^(.+)-(${QUANTIZATIONS.join("|")})-MLC(?:-(\\w+))?$`);

/** The parts of an id in WebLLM's form. `form`: "1k" stands for a smaller context window. */
export interface Name {
  model: string;
  quantization: string;
  form: string;
}

/** Returns the parts of an id in WebLLM's form; null for any other id. */
export function parseName(modelId: string): Name | null {
  const [, model, quantization, form = ""] = ID.exec(modelId) ?? [];
  return model && quantization ? { model, quantization, form } : null;
}

/** The records whose id is `model` with a quantization, the preferred one first: the smallest. */
export function variants(model: string, records: readonly ModelRecord[]): ModelRecord[] {
  const named = records.flatMap((record) => {
    const name = parseName(record.model_id);
    if (name?.model !== model) return [];
    const preference = QUANTIZATIONS.indexOf(name.quantization);
    return [{ record, form: name.form, preference, memory: record.vram_required_MB ?? 0 }];
  });
  const wholes = named.filter(({ form }) => form === "");
  const found = wholes.length ? wholes : named;
  found.sort((a, b) => a.preference - b.preference || a.memory - b.memory);
  return found.map(({ record }) => record);
}

/** The variant for a GPU with these features; null: for the CPU, which needs none. */
export function choose(
  records: readonly ModelRecord[],
  features: ReadonlySet<string> | null,
): ModelRecord | undefined {
  const isF16 = ({ model_id: id }: ModelRecord) => !!parseName(id)?.quantization.includes("f16");
  const avoidsF16 = features !== null && !features.has("shader-f16");
  const ordered = avoidsF16 ? [...records].sort((a, b) => +isF16(a) - +isF16(b)) : records;
  const has = (name: string) => features === null || features.has(name);
  return ordered.find((each) => (each.required_features ?? []).every(has)) ?? records[0];
}

/** The features of the GPU that runs models in this browser; null if the CPU runs them. */
export async function gpuFeatures(): Promise<ReadonlySet<string> | null> {
  const adapter = await globalThis.navigator?.gpu?.requestAdapter().catch(() => null);
  return adapter && !adapter.info?.isFallbackAdapter ? new Set(adapter.features) : null;
}
