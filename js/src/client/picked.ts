// Model files that the user picked.

import { offerFiles } from "../../../src/webllm/artifacts/browser/stores.js";
import { stored } from "./errors";
import type { ModelRecord } from "./messages";

type Picked = File | FileSystemFileHandle;

/**
 * Returns a record for an AppConfig's model_list: of one file, or of several that are one model.
 * Workers of the site read the files in place while this page is open. `modelId` defaults to the
 * name of the first.
 */
export async function modelFromFile(
  picked: Picked | readonly Picked[],
  modelId?: string,
): Promise<ModelRecord> {
  const model = await stored(() => offerFiles(picked));
  const name = model.replace(/^.*\//, "").replace(/(-\d{5}-of-\d{5})?\.gguf$/, "");
  return { model, model_id: modelId ?? name };
}
