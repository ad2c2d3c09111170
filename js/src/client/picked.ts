// Model files that the user picked: read where they lie, by any worker of the site, for as long as
// this page is open. The other end is src/webllm/artifacts/browser_picked.py.

import { newUuid } from "./calls";
import type { ModelRecord } from "./messages";

/** A record for the model_list of an AppConfig. `modelId` is the file's name if it is not given. */
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
