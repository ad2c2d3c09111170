// WebLLM's functions for stored models. Without a configuration they look models up in the built-in one.

import { namedModels, prebuiltAppConfig, type AppConfigLike } from "./config";
import { deleteStoredModel, findModel, hasStoredModel } from "./model_store";

/**
 * Whether the whole model is stored. Paths are those of the page's site. An id without its
 * quantization stands for the variant that this browser loads.
 */
export function hasModelInCache(modelId: string, appConfig?: AppConfigLike): Promise<boolean> {
  return hasStoredModel(modelId, withModels(appConfig));
}

/** Deletes the model, even if only a part of it is stored. */
export function deleteModelAllInfoInCache(
  modelId: string,
  appConfig?: AppConfigLike,
): Promise<void> {
  return deleteStoredModel(modelId, withModels(appConfig));
}

/** As deleteModelAllInfoInCache: weights, tokenizer and options are one file. */
export const deleteModelInCache = deleteModelAllInfoInCache;

/** Deletes nothing: a model's chat configuration is part of its file. */
export async function deleteChatConfigInCache(
  modelId: string,
  appConfig?: AppConfigLike,
): Promise<void> {
  await findModel(modelId, withModels(appConfig));
}

/** Deletes nothing: the kernels are part of webllm. */
export const deleteModelWasmInCache = deleteChatConfigInCache;

function withModels(appConfig: AppConfigLike = prebuiltAppConfig): AppConfigLike {
  if (namedModels(appConfig)) return appConfig;
  return { ...appConfig, model_list: prebuiltAppConfig.model_list };
}
