// The package's exports under WebLLM's names: engines, the handler for workers, and types.

export type * from "./api";
export { prebuiltAppConfig } from "./config";
export type {
  AppConfig,
  AppConfigLike,
  InitProgressCallback,
  InitProgressReport,
  MLCEngineConfig,
} from "./config";
export type { Recovery } from "./connection";
export type * from "./content_parts";
export type { ConvTemplateConfig } from "./conv_template";
export { messagePortEndpoint, workerEndpoint } from "./endpoint";
export type { Endpoint, WorkerLike } from "./endpoint";
export { CreateWebWorkerMLCEngine, WebWorkerMLCEngine } from "./engine";
export type { MLCEngineInterface } from "./engine";
export * from "./error_classes";
export {
  CreateExtensionServiceWorkerMLCEngine,
  ExtensionServiceWorkerMLCEngine,
} from "./extension_engine";
export type { ExtensionMLCEngineConfig } from "./extension_engine";
export { WebLLMError } from "./errors";
export type * from "./message_params";
export { isValidSRI, verifyIntegrity } from "./integrity";
export type { FileIntegrityMap, ModelIntegrity, SRIString } from "./integrity";
export type { LogitProcessor, LogitProcessorRegistry } from "./logit_processor";
export type { ChatOptions, CustomRequestParams, LogLevel, ModelRecord } from "./messages";
export {
  deleteChatConfigInCache,
  deleteModelAllInfoInCache,
  deleteModelInCache,
  deleteModelWasmInCache,
  hasModelInCache,
} from "./stored_models";
export * from "./names";
export { CreateMLCEngine, MLCEngine } from "./own_engine";
export type { OwnEngineConfig } from "./own_engine";
export { modelFromFile } from "./picked";
export { Chat, Completions, Embeddings } from "./resources";
export type { RequestOptions } from "./request_options";
export type * from "./resumable";
export type { Root } from "./root";
export { CreateServiceWorkerMLCEngine, ServiceWorkerMLCEngine } from "./service_worker_engine";
export type { ServiceWorkerEngineConfig } from "./service_worker_engine";
export type { EngineHost } from "./shared_engine";
export type { ChunkStream } from "./stream";
export * from "./unserved";
export { WebWorkerMLCEngineHandler } from "./worker_handler";
