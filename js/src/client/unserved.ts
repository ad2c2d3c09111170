// WebLLM's exports that have no meaning here. They exist so that programs that import them run.

import type { ChatCompletionRequest, CompletionRequest, EmbeddingRequest } from "./api";
import { configError } from "./errors";
import * as list from "../../../src/webllm/webllm_list.json";
import type { ModelType } from "./names";
import unsupported from "./unsupported_fields.json";

/**
 * Of WebLLM's model libraries, the kernels that it fetches: records name them in `model_lib`, which is
 * not read here, since kernels are part of webllm. `prebuiltAppConfig` has the models of this version.
 */
export const modelVersion: string = list.modelVersion;
export const modelLibURLPrefix: string = list.modelLibURLPrefix;

/** The models that answer requests with `tools`: none yet. */
export const functionCallingModelIds: string[] = [];

/** Fields of OpenAI's chat completions that are refused. */
export const ChatCompletionRequestUnsupportedFields: string[] = unsupported;

/** Throws ConfigError: it is in a file of its own, because it brings all of Pyodide along. */
export class ServiceWorkerMLCEngineHandler {
  constructor() {
    throw configError(
      "webllm/service_worker.js has ServiceWorkerMLCEngineHandler; import it there, " +
        "in the script of the Service Worker",
    );
  }
}

/** Throws ConfigError: it is in a file of its own too. */
export class ExtensionServiceWorkerMLCEngineHandler {
  constructor() {
    throw configError(
      "webllm/extension_service_worker.js has ExtensionServiceWorkerMLCEngineHandler; import it " +
        "there, in the script of the extension's background worker",
    );
  }
}

/** Of WebLLM's packages of compiled models, which are not read here. */
export const MODEL_PACKAGE_MANIFEST_FILENAME = "mlc-model-manifest.json";
export const TENSOR_CACHE_MANIFEST_FILENAME = "tensor-cache.json";
export const ARTIFACT_SCHEMA_VERSION = 1;

export interface ModelPackageManifest {
  schema: "mlc.model-package";
  schema_version: 1;
  chat_config: "mlc-chat-config.json";
  interface_id: string;
  weights: { manifest: "tensor-cache.json"; parameter_schema_id: string };
  tasks: Record<string, unknown>;
}

export interface CompiledProgramArtifact {
  schema: "mlc.compiled-program";
  schema_version: 1;
  interface_id: string;
  parameter_schema_id: string;
  programs: Record<string, unknown>;
  resources: unknown;
}

/** Throws ConfigError: the worker checks requests. */
export function postInitAndCheckFieldsChatCompletion(
  _request: ChatCompletionRequest,
  _currentModelId: string,
  _currentModelType: ModelType,
): void {
  throw checkedElsewhere("postInitAndCheckFieldsChatCompletion", "chat.completions.create");
}

/** Throws ConfigError: the worker checks requests. */
export function postInitAndCheckFieldsCompletion(
  _request: CompletionRequest,
  _currentModelId: string,
): void {
  throw checkedElsewhere("postInitAndCheckFieldsCompletion", "completions.create");
}

/** Throws ConfigError: the worker checks requests. */
export function postInitAndCheckFieldsEmbedding(
  _request: EmbeddingRequest,
  _currentModelId: string,
): void {
  throw checkedElsewhere("postInitAndCheckFieldsEmbedding", "embeddings.create");
}

/** Does nothing: text completions can be resumed here too. */
export function rejectCompletionResumable(_request: CompletionRequest): void {}

function checkedElsewhere(name: string, create: string): Error {
  return configError(
    `${name} checks nothing here: the worker checks each request; call ${create}, which throws ` +
      "RequestError for one that is wrong",
  );
}
