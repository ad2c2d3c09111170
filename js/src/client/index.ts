// WebLLM's names: engines for pages, the handler for workers, and the types of what they say.

export type * from "./api";
export { prebuiltAppConfig } from "./config";
export type { InitProgressCallback, InitProgressReport, MLCEngineConfig } from "./config";
export { messagePortEndpoint, workerEndpoint } from "./endpoint";
export type { Endpoint, WorkerLike } from "./endpoint";
export { CreateWebWorkerMLCEngine, WebWorkerMLCEngine } from "./engine";
export type { MLCEngineInterface } from "./engine";
export * from "./error_classes";
export { WebLLMError } from "./errors";
export type {
  AppConfig,
  ChatOptions,
  CustomRequestParams,
  LogLevel,
  ModelRecord,
} from "./messages";
export {
  deleteChatConfigInCache,
  deleteModelAllInfoInCache,
  deleteModelInCache,
  deleteModelWasmInCache,
  hasModelInCache,
} from "./model_store";
export * from "./names";
export { CreateMLCEngine, MLCEngine } from "./own_engine";
export type { OwnEngineConfig } from "./own_engine";
export { modelFromFile } from "./picked";
export type * from "./requests";
export type { Chat, Completions, Embeddings } from "./resources";
export type { Root } from "./root";
export type { ChunkStream } from "./stream";
export { WebWorkerMLCEngineHandler } from "./worker_handler";
