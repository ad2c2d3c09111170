// Model files that the user picked.

import { offerFile } from "../../../src/webllm/artifacts/browser/stores.js";
import type { ModelRecord } from "./messages";

/**
 * Returns a record for an AppConfig's model_list. Workers of the site read the file in place while
 * this page is open. `modelId` defaults to the file's name.
 */
export async function modelFromFile(
  picked: File | FileSystemFileHandle,
  modelId?: string,
): Promise<ModelRecord> {
  return {
    model: await offerFile(picked),
    model_id: modelId ?? picked.name.replace(/\.gguf$/, ""),
  };
}
