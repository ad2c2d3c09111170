// Model files that the user picked. Workers of the site read them in place while this page is open,
// through src/webllm/artifacts/browser/picked.py.

import { newUuid } from "./calls";
import type { ModelRecord } from "./messages";

/** Returns a record for an AppConfig's model_list. `modelId` defaults to the file's name. */
export async function modelFromFile(
  picked: File | FileSystemFileHandle,
  modelId?: string,
): Promise<ModelRecord> {
  const file = picked instanceof File ? picked : await picked.getFile();
  const id = newUuid();
  const channel = new BroadcastChannel("webllm-picked");
  channel.onmessage = ({ data }) => {
    if (data.want === id) channel.postMessage({ id, file });
  };
  const name = modelId ?? file.name.replace(/\.gguf$/, "");
  return { model: `picked:${id}/${file.name}`, model_id: name };
}
